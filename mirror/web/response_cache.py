"""A cache of whole responses, keyed by the client's access scope and the exact bytes of the request's head.

The clients of a mirror ask for the same few manifests and configs all the time, each client with the same
head. A head that the full path has answered twice from the local cache is stored whole, with the bytes of the
response; when the head comes again on an idle connection it is compared, not parsed, and answered at once.
Identical request bytes (method, path, every header, credentials included) have an identical response for as
long as the response lasts, for all clients of one access scope (`mirror.access.policy`). All other requests
take the full path: other heads, heads in several segments, pipelined heads, and requests of clients that do
not read.

Both paths leave the same traces: metrics, access line, last use.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, hdrs, web
from msgspec import Struct

from mirror.access.identity import Identity
from mirror.access.policy import ConnectionScope, everybody
from mirror.metrics.metrics import Metrics
from mirror.metrics.request_stats import RequestStats
from mirror.oci.digest import Digest
from mirror.util.callbacks import zero
from mirror.util.log import LineFiltered, LineTemplate, get_logger, timestamp, write_lines
from mirror.util.lru import LRUCache
from mirror.web.request_log import RequestRecord, new_id

if TYPE_CHECKING:
    from mirror.web.audit.audit_log import AuditLog, Entry

log = get_logger(__name__)

# Maximum age of an entry, in seconds: the full path looks at each response now and then.
LONGEST_LIFE_SECONDS = 30.0

# Served responses are recorded together, after this many seconds or when this many are pending: many cost
# less than one by one. Soon enough for an operator who watches the log.
FLUSH_SECONDS = 0.05
MAX_PENDING = 50

# Hashes of heads seen once, waiting for the second time; all are forgotten at this number.
MAX_SEEN_ONCE = 8192

# Fields that differ between the access lines of identical requests.
VARYING = ("id", "client", "first_byte_ms", "total_ms", "timestamp")


class CachedResponse(Struct, frozen=True, eq=False):
    """The bytes of a response without its Date, and what to record when the response is served.

    `expires`: by the cache's clock. `removal_epoch`, `access_epoch`: the store's at lookup time; the entry is
    invalid once one of them has changed. `length`: bytes of the body. `digest`: the blob whose use to record.
    `line`: of the access log, None when access lines are off. `client`: address in the head of the request,
    by the word of a proxy; None for the address of the connection. `names`: what the client has proven to be.
    `audit`: what the audit log has about it.
    """

    before_date: bytes
    after_date: bytes
    expires: float
    removal_epoch: int
    access_epoch: int
    length: int
    digest: Digest | None
    stats: RequestStats
    line: LineTemplate | None
    client: str | None = None
    names: tuple[str, ...] = ()
    audit: "Entry | None" = None


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
        self.passes: Callable[[Identity, int], bool] | None = (
            None  # asked before an answer, if there are limits
        )
        self.audit: AuditLog | None = None
        self._responses: LRUCache[tuple[ConnectionScope, bytes], CachedResponse] = LRUCache(limit)
        self._metrics = metrics
        self._seen_once: set[int] = set()
        self._record_use = record_use
        metrics.requests.flush_pending = self.flush
        # Served and not recorded yet: response, client, wall-clock time, seconds taken.
        self._pending: list[tuple[CachedResponse, str, float, float]] = []
        self._timer_running = False
        self._date_second = 0
        self._date = b""

    async def remember(
        self, scope: ConnectionScope, head: bytes, record: RequestRecord, response: web.StreamResponse
    ) -> None:
        """Store the response to `head` if the head came before and the response can be served again as is.

        Never raises: a response that cannot be stored is still sent.
        """
        try:
            await self._remember((scope, head), record, response)
        except Exception as error:  # no traceback: what an upstream sent must not fill the log
            log.warning("response not remembered", id=record.id, reason=type(error).__name__)

    async def _remember(
        self, key: tuple[ConnectionScope, bytes], record: RequestRecord, response: web.StreamResponse
    ) -> None:
        ttl = min(record.ttl, record.identity_ttl, LONGEST_LIFE_SECONDS)
        if ttl <= 0 or not isinstance(response, web.Response) or not self._seen_before(key):
            return
        await response.prepare(record.request)
        if not response.keep_alive or record.request.version != HttpVersion11:
            return
        body = response.body if record.request.method == "GET" else b""
        if not isinstance(body, bytes):
            return
        before, after = _split_at_date(response)
        cached = CachedResponse(
            before,
            after + body,
            expires=self._clock() + ttl,
            removal_epoch=record.removal_epoch,
            access_epoch=record.access_epoch,
            length=record.bytes,
            digest=record.digest if record.request.method == "GET" else None,
            stats=self._metrics.requests.of(record.kind, record.outcome.value),
            line=_line(record),
            client=record.client if record.client != (record.request.remote or "") else None,
            names=record.identity.names,
            audit=None if self.audit is None else self.audit.entry(record),
        )
        self._responses.put(key, cached, len(key[1]) + len(before) + len(cached.after_date))

    def answer(
        self, scope: ConnectionScope, head: bytes, transport: asyncio.WriteTransport, client: str
    ) -> bool:
        """Write the cached response to `head`; return False, with nothing written, if there is none."""
        cached = self._responses.get((scope, head))
        if cached is None:
            return False
        started = self._clock()
        if started >= cached.expires or self._is_outdated(cached):
            self._responses.drop((scope, head))
            return False
        if transport.get_write_buffer_size():
            return False
        if self.passes is not None and not self.passes(
            Identity(cached.client or client, cached.names), cached.length
        ):
            return False
        now = time.time()
        if int(now) != self._date_second:
            self._date_second, self._date = int(now), formatdate(now, usegmt=True).encode()
        transport.write(b"".join((cached.before_date, self._date, cached.after_date)))
        self._add_pending(cached, client, now, self._clock() - started)
        return True

    def _is_outdated(self, cached: CachedResponse) -> bool:
        return self.removal_epoch() != cached.removal_epoch or self.access_epoch() != cached.access_epoch

    def close(self) -> None:
        """Stop answering, and record what was served."""
        self._responses = LRUCache(0)
        self.flush()

    def flush(self) -> None:
        """Record the served responses: metrics, access lines, last use."""
        pending, self._pending = self._pending, []
        durations: dict[CachedResponse, list[float]] = defaultdict(list)
        lines = []
        for cached, client, now, seconds in pending:
            durations[cached].append(seconds)
            number = new_id()
            if cached.line is not None:
                milliseconds = round(seconds * 1000, 2)
                values = (number, cached.client or client, milliseconds, milliseconds, timestamp(now))
                lines.append(cached.line.fill(values))
            if cached.audit is not None and self.audit is not None:
                self.audit.repeat(cached.audit, number, cached.client or client, seconds, now)
        for cached, each in durations.items():
            cached.stats.add_batch(cached.length, each)
            if cached.digest is not None:
                self._record_use(cached.digest)
        write_lines(lines)

    def _add_pending(self, cached: CachedResponse, client: str, now: float, seconds: float) -> None:
        self._pending.append((cached, client, now, seconds))
        if len(self._pending) >= MAX_PENDING:
            self.flush()
        elif not self._timer_running:
            self._timer_running = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_on_timer)

    def _flush_on_timer(self) -> None:
        self._timer_running = False
        self.flush()

    def _seen_before(self, key: tuple[ConnectionScope, bytes]) -> bool:
        mark = hash(key)
        if mark in self._seen_once:
            return True
        if len(self._seen_once) >= MAX_SEEN_ONCE:
            self._seen_once.clear()
        self._seen_once.add(mark)
        return False


def _split_at_date(response: web.Response) -> tuple[bytes, bytes]:
    """Return the head of a prepared response, as aiohttp writes it, before and after the value of Date."""
    headers = [f"{name}: {value}" for name, value in response.headers.items()]
    at = list(response.headers).index(hdrs.DATE)
    before = [f"HTTP/1.1 {response.status} {response.reason}", *headers[:at], f"{hdrs.DATE}: "]
    return "\r\n".join(before).encode(), "\r\n".join(["", *headers[at + 1 :], "", ""]).encode()


def _line(record: RequestRecord) -> LineTemplate | None:
    try:
        return LineTemplate("access", "request", record.fields(), VARYING)
    except LineFiltered:
        return None
