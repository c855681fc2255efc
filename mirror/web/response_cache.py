"""A cache of whole responses, keyed by the client's access scope and the exact bytes of the request's head.

The clients of a mirror ask for the same few manifests and configs all the time, each client with the same
head. A head that the full path has answered twice from the local cache is stored whole, with the bytes of the
response; when the head comes again on an idle connection it is compared, not parsed, and answered at once.
Identical request bytes (method, path, every header, credentials included) have an identical response for as
long as the response lasts, for all clients of one access scope (`mirror.access.policy`). Clients that differ
in their logins alone, and have the same rights, share it (`mirror.web.fastpath.logins`). All other requests
take the full path: other heads, heads in several segments, pipelined heads, and requests of clients that do
not read.

Both paths leave the same traces: metrics, access line, last use.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Hashable
from email.utils import formatdate

from aiohttp import HttpVersion11, web

from mirror.access.policy import ConnectionScope, everybody
from mirror.cache.results import Outcome
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.util.callbacks import zero
from mirror.util.log import get_logger
from mirror.util.lru import LRUCache
from mirror.web.connections.large_answers import LARGE
from mirror.web.fastpath.hit_log import (
    LONGEST_LIFE_SECONDS,
    HitLog,
    KnownResponse,
    client_behind_proxy,
    lifetime,
    line_template,
    split_at_date,
)
from mirror.web.fastpath.known_blobs import KnownBlobs
from mirror.web.fastpath.logins import ScopeKey, SharedKey
from mirror.web.fastpath.range_cache import RangeCache
from mirror.web.fastpath.seen_once import SeenOnce
from mirror.web.fastpath.shared_responses import CachedResponse, SharedResponses, name_of
from mirror.web.request_log import RequestRecord

log = get_logger(__name__)

# Hashes of heads seen once, waiting for the second time; all are forgotten at this number.
MAX_SEEN_ONCE = 8192

# Room for the scopes of connections, in bytes: more than ten thousand.
SCOPES_BYTES = 8 * 1024 * 1024


class ResponseCache:
    """Bounded cache of responses by request head.

    `limit`: bytes. `record_use`: called with the digest of served content. `removal_epoch`, `access_epoch`:
    compared at each hit, because a response ends with its content and with its client's rights; and
    `push_epoch`, where a push of a tag ends the response. `scope_of`:
    returns the access scope of a connection by the address of its other end, and by what it proves.
    """

    def __init__(
        self,
        limit: int,
        metrics: Metrics,
        record_use: Callable[[Digest], None],
        clock: Callable[[], float] = time.perf_counter,
        removal_epoch: Callable[[], int] = zero,
        access_epoch: Callable[[], int] = zero,
        scope_of: Callable[[str, tuple[str, ...]], ConnectionScope] = everybody,
    ) -> None:
        self._clock = clock
        self.removal_epoch = removal_epoch
        self.access_epoch = access_epoch
        self.push_epoch: Callable[[], int] = zero
        self.scope_of = scope_of
        # By scope and head; those that clients with logins share, by their names.
        self._responses: LRUCache[Hashable, CachedResponse] = LRUCache(limit)
        self.shared = SharedResponses(clock, self._is_outdated)
        self.logins = self.shared.logins
        self._scopes: LRUCache[ConnectionScope, ScopeKey] = LRUCache(SCOPES_BYTES)
        self._numbers = itertools.count(1)
        self._metrics = metrics
        self._seen_once = SeenOnce(MAX_SEEN_ONCE)
        self.hits = HitLog(record_use)
        self.ranges = RangeCache(metrics, self.hits, clock, self._is_outdated)
        self.blobs = KnownBlobs(metrics, self.hits, clock, self._is_outdated, self._current_date)
        metrics.requests.flush_pending = self.flush
        self._date_from = 0
        self._date = b""

    def scope_key(self, scope: ConnectionScope) -> ScopeKey:
        """Return the number that stands for a scope. A scope has a thousand rules in it, perhaps."""
        found = self._scopes.get(scope)
        if found is None:
            found = next(self._numbers)
            self._scopes.put(scope, found, 8 * len(scope))
        return found

    async def remember(
        self, scope: ScopeKey, head: bytes, record: RequestRecord, response: web.StreamResponse
    ) -> None:
        """Store the response to `head` if the head came before and the response can be served again as is.

        Never raises: a response that cannot be stored is still sent.
        """
        try:
            await self._remember(scope, head, record, response)
        except Exception as error:  # no traceback: what an upstream sent must not fill the log
            log.warning("response not remembered", id=record.id, reason=type(error).__name__)

    async def _remember(
        self, scope: ScopeKey, head: bytes, record: RequestRecord, response: web.StreamResponse
    ) -> None:
        ttl = lifetime(record, record.ttl)
        if ttl <= 0 or not isinstance(response, web.Response):
            return
        shared = self.logins.note(scope, head, record) if record.outcome is Outcome.HIT else None
        if shared is None and not self._seen_once.again((scope, head)):
            return
        await response.prepare(record.request)
        if not response.keep_alive or record.request.version != HttpVersion11:
            return
        body = response.body if record.request.method == "GET" else b""
        if not isinstance(body, bytes) or len(body) >= LARGE:  # those are counted while they are sent
            return
        before, after = split_at_date(response)
        after += body
        if shared is None:
            self._put((scope, head), self._cached(record, (before, after), ttl), len(head))
        else:
            self._share(shared, record, (before, after))

    def _share(self, key: SharedKey, record: RequestRecord, parts: tuple[bytes, bytes]) -> None:
        """Store a response for all clients that get it, once it came before; note that these clients do."""
        name = name_of(key, record, parts, audited=self.hits.audit is not None)
        known, ttl = self._responses.get(name), min(record.ttl, LONGEST_LIFE_SECONDS)
        if known is not None:
            known.renew(self._clock() + ttl, record)
        elif self._seen_once.again(name):
            known = self._cached(record, parts, ttl, shared=True)
            self._put(name, known, len(name.head) + len(name.recorded))
        else:
            return
        self.shared.allow(key, record, known)

    def _put(self, name: Hashable, cached: CachedResponse, size: int) -> None:
        self._responses.put(name, cached, size + len(cached.before_date) + len(cached.after_date))

    def _cached(
        self, record: RequestRecord, parts: tuple[bytes, bytes], ttl: float, *, shared: bool = False
    ) -> CachedResponse:
        return CachedResponse(
            before_date=parts[0],
            after_date=parts[1],
            expires=self._clock() + ttl,
            removal_epoch=record.removal_epoch,
            access_epoch=record.access_epoch,
            push_epoch=record.push_epoch,
            length=record.bytes,
            digest=record.digest if record.request.method == "GET" else None,
            stats=self._metrics.requests.of(record.kind, record.outcome.value),
            line=line_template(record, shared=shared and bool(record.identity.names)),
            client=client_behind_proxy(record),
            names=record.identity.names,
            audit=self.hits.audit_entry(record),
            fields=self.hits.shown_fields(record),
            peer=(record.request.remote or "") if record.outcome is Outcome.DENIED else None,
        )

    def answer(self, scope: ScopeKey, head: bytes, transport: asyncio.WriteTransport, client: str) -> bool:
        """Write the cached response to `head`; return False, with nothing written, if there is none."""
        started, key, login, cached = self._clock(), (scope, head), None, None
        known = self.shared.heads.get(key)
        if known is not None and started < known.expires:
            cached, login = known.response(), known.login
        if cached is None or (known is not None and known.access_epoch != cached.access_epoch):
            if self.logins.known and (found := self.shared.find(key, started)) is not None:
                cached, login = found
            else:
                cached, login = self._responses.get(key), None
            if cached is None:
                return self.ranges.answer(scope, head, transport, client, self._current_date)
        if (  # as in `_is_outdated`: calls are dear here
            started >= cached.expires
            or self.removal_epoch() != cached.removal_epoch
            or self.access_epoch() != cached.access_epoch
            or (cached.push_epoch is not None and self.push_epoch() != cached.push_epoch)
        ):
            if login is not None and self.shared.drop_head(key):  # its clients may get another one by now
                return self.answer(scope, head, transport, client)
            self._responses.drop(key)
            return False
        if transport.get_write_buffer_size() or (cached.peer is not None and cached.peer != client):
            return False
        hits, length = self.hits, cached.length
        if hits.limit is not None and not hits.passes(cached, client, length, login):
            return False
        now = time.time()
        date = self._date if self._date_from <= now < self._date_from + 1 else self._current_date()
        transport.write(b"".join((cached.before_date, date, cached.after_date)))
        hits.add(cached, length, client, (now, self._clock() - started), login)
        return True

    def _is_outdated(self, cached: KnownResponse) -> bool:
        return (
            self.removal_epoch() != cached.removal_epoch
            or self.access_epoch() != cached.access_epoch
            or (cached.push_epoch is not None and self.push_epoch() != cached.push_epoch)
        )

    def close(self) -> None:
        """Stop answering, and record what was served."""
        self._responses = LRUCache(0)
        self.shared.close()
        self.ranges.close()
        self.blobs.close()
        self.flush()

    def flush(self) -> None:
        """Record the served responses: metrics, access lines, last use."""
        self.hits.flush()

    def _current_date(self) -> bytes:
        now = int(time.time())
        if now != self._date_from:
            self._date_from, self._date = now, formatdate(now, usegmt=True).encode()
        return self._date
