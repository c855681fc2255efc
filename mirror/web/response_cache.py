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
    HitLog,
    KnownResponse,
    client_behind_proxy,
    lifetime,
    line_template,
    split_at_date,
)
from mirror.web.fastpath.known_blobs import KnownBlobs
from mirror.web.fastpath.logins import KnownLogins, ScopeKey
from mirror.web.fastpath.range_cache import RangeCache
from mirror.web.fastpath.seen_once import SeenOnce
from mirror.web.request_log import RequestRecord

log = get_logger(__name__)

# Hashes of heads seen once, waiting for the second time; all are forgotten at this number.
MAX_SEEN_ONCE = 8192

# Room for the scopes of connections, in bytes: more than ten thousand.
SCOPES_BYTES = 8 * 1024 * 1024


class CachedResponse(KnownResponse, frozen=True, eq=False, kw_only=True):
    """The bytes of a response without its Date. `length`: bytes of the body."""

    before_date: bytes
    after_date: bytes
    length: int


class ResponseCache:
    """Bounded cache of responses by request head.

    `limit`: bytes. `record_use`: called with the digest of served content. `removal_epoch`, `access_epoch`:
    compared at each hit, because a response ends with its content and with its client's rights. `scope_of`:
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
        self.scope_of = scope_of
        # By scope and head; with a known login by its peers, and head without the login.
        self._responses: LRUCache[tuple[Hashable, bytes], CachedResponse] = LRUCache(limit)
        self.logins = KnownLogins(clock)
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
        key: tuple[Hashable, bytes] = shared or (scope, head)
        if not self._seen_once.again(key):
            return
        await response.prepare(record.request)
        if not response.keep_alive or record.request.version != HttpVersion11:
            return
        body = response.body if record.request.method == "GET" else b""
        if not isinstance(body, bytes) or len(body) >= LARGE:  # those are counted while they are sent
            return
        before, after = split_at_date(response)
        cached = CachedResponse(
            before_date=before,
            after_date=after + body,
            expires=self._clock() + ttl,
            removal_epoch=record.removal_epoch,
            access_epoch=record.access_epoch,
            length=record.bytes,
            digest=record.digest if record.request.method == "GET" else None,
            stats=self._metrics.requests.of(record.kind, record.outcome.value),
            line=line_template(record, shared=shared is not None and bool(record.identity.names)),
            client=client_behind_proxy(record),
            names=record.identity.names,
            audit=self.hits.audit_entry(record),
            fields=self.hits.shown_fields(record),
            peer=(record.request.remote or "") if record.outcome is Outcome.DENIED else None,
        )
        self._responses.put(key, cached, len(head) + len(before) + len(cached.after_date))

    def answer(self, scope: ScopeKey, head: bytes, transport: asyncio.WriteTransport, client: str) -> bool:
        """Write the cached response to `head`; return False, with nothing written, if there is none."""
        key: tuple[Hashable, bytes]
        started, login, cached = self._clock(), None, None
        if self.logins.known and (found := self.logins.find(scope, head, started)) is not None:
            key, login = found
            cached = self._responses.get(key)
        if cached is None:
            key, login = (scope, head), None
            cached = self._responses.get(key)
        if cached is None:
            return self.ranges.answer(scope, head, transport, client, self._current_date)
        if (  # as in `_is_outdated`: calls are dear here
            started >= cached.expires
            or self.removal_epoch() != cached.removal_epoch
            or self.access_epoch() != cached.access_epoch
        ):
            self._responses.drop(key)
            return False
        if login is not None and login.access_epoch != cached.access_epoch:
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
        return self.removal_epoch() != cached.removal_epoch or self.access_epoch() != cached.access_epoch

    def close(self) -> None:
        """Stop answering, and record what was served."""
        self._responses = LRUCache(0)
        self.logins.close()
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
