"""Answers to requests that are, byte for byte, requests that were answered before.

The clients of a mirror ask for the same few manifests and configs all the time, with the same head each.
A head that the full path has answered twice from what is here is remembered whole, with the bytes of the
answer; when it comes again on an idle connection it is compared, not parsed, and answered at once. Identity
of the bytes (method, path, every header, credentials included) is identity of the answer, for as long as
the answer lasts. Anything else takes the full path: other heads, heads in several segments, pipelined ones,
and those of clients that do not read.

What is left behind is the same on both ways: metrics, access line, last use.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from aiohttp import HttpVersion11, hdrs, web

from mirror.metrics.metrics import Metrics
from mirror.metrics.request_stats import RequestStats
from mirror.oci.digest import Digest
from mirror.util.log import LineFiltered, LineTemplate, timestamp, write_lines
from mirror.util.lru import LRUCache
from mirror.web.request_log import RequestRecord, new_id

# However long an answer lasts, now and then the full path has a look at it, in seconds.
LONGEST_LIFE_SECONDS = 30.0

# What was given is noted so long later, in seconds, and no more than so much at a time: many cost less than
# one by one. Soon enough for a log that is watched.
FLUSH_SECONDS = 0.05
MAX_PENDING = 50

# How many heads that were seen once are waited for to be seen again.
MAX_SEEN_ONCE = 8192

# What differs between the access lines of identical requests.
VARYING = ("id", "client", "first_byte_ms", "total_ms", "timestamp")


@dataclass(frozen=True, slots=True, eq=False)
class CachedResponse:
    """An answer but for its Date, and what is noted when it is given. `until` is of the clock.

    `removed`: what the cache's removals were at when it was looked for; once more was removed it is over.
    `length`: bytes of the body; `digest`: whose use is recorded; `line`: of the access log, None for none.
    """

    before_date: bytes
    after_date: bytes
    until: float
    removed: int
    length: int
    digest: Digest | None
    tally: RequestStats
    line: LineTemplate | None


class ResponseCache:
    """The memory of answered heads. `limit` in bytes; `used` is told which content was given away.

    `removed`: as of `store.generation`; looked at each time, because an answer ends with its content.
    """

    def __init__(
        self,
        limit: int,
        metrics: Metrics,
        used: Callable[[Digest], None],
        clock: Callable[[], float] = time.perf_counter,
        removed: Callable[[], int] = int,
    ) -> None:
        self._clock = clock
        self.removed = removed
        self._known: LRUCache[bytes, CachedResponse] = LRUCache(limit)
        self._metrics = metrics
        self._seen: set[int] = set()
        self._used = used
        metrics.requests.flush_pending = self.flush
        self._given: list[tuple[CachedResponse, str, float, float]] = []  # to whom, when, in how many seconds
        self._timed = False
        self._second = 0
        self._date = b""

    async def remember(self, head: bytes, record: RequestRecord, response: web.StreamResponse) -> None:
        """Keep what was answered to `head`, if it comes more than once and can be given again as it is."""
        if record.lasts <= 0 or not isinstance(response, web.Response) or not self._seen_before(head):
            return
        await response.prepare(record.request)
        if not response.keep_alive or record.request.version != HttpVersion11:
            return
        body = response.body if record.request.method == "GET" else b""
        if not isinstance(body, bytes):
            return
        before, after = _split_at_date(response)
        known = CachedResponse(
            before,
            after + body,
            until=self._clock() + min(record.lasts, LONGEST_LIFE_SECONDS),
            removed=record.removed,
            length=record.bytes,
            digest=record.digest if record.request.method == "GET" else None,
            tally=self._metrics.requests.of(record.kind, record.outcome.value),
            line=_line(record),
        )
        self._known.put(head, known, len(head) + len(before) + len(known.after_date))

    def answer(self, head: bytes, transport: asyncio.WriteTransport, client: str) -> bool:
        """Answer `head` if it is known; False, and nothing done, if not."""
        known = self._known.get(head)
        if known is None:
            return False
        started = self._clock()
        if started >= known.until or self.removed() != known.removed:
            self._known.drop(head)
            return False
        if transport.get_write_buffer_size():
            return False
        now = time.time()
        if int(now) != self._second:
            self._second, self._date = int(now), formatdate(now, usegmt=True).encode()
        transport.write(b"".join((known.before_date, self._date, known.after_date)))
        self._note(known, client, now, self._clock() - started)
        return True

    def close(self) -> None:
        """Answer nothing any more, and note what was given."""
        self._known = LRUCache(0)
        self.flush()

    def flush(self) -> None:
        """Note what was given: in metrics, in the access log, and as used."""
        given, self._given = self._given, []
        durations: dict[CachedResponse, list[float]] = defaultdict(list)
        lines = []
        for known, client, now, took in given:
            durations[known].append(took)
            if known.line is not None:
                milliseconds = round(took * 1000, 2)
                values = (new_id(), client, milliseconds, milliseconds, timestamp(now))
                lines.append(known.line.fill(values))
        for known, each in durations.items():
            known.tally.add_batch(known.length, each)
            if known.digest is not None:
                self._used(known.digest)
        write_lines(lines)

    def _note(self, known: CachedResponse, client: str, now: float, took: float) -> None:
        self._given.append((known, client, now, took))
        if len(self._given) >= MAX_PENDING:
            self.flush()
        elif not self._timed:
            self._timed = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_on_timer)

    def _flush_on_timer(self) -> None:
        self._timed = False
        self.flush()

    def _seen_before(self, head: bytes) -> bool:
        mark = hash(head)
        if mark in self._seen:
            return True
        if len(self._seen) >= MAX_SEEN_ONCE:
            self._seen.clear()
        self._seen.add(mark)
        return False


def _split_at_date(response: web.Response) -> tuple[bytes, bytes]:
    """The head of a prepared response as aiohttp writes it, before and after the value of Date."""
    headers = [f"{name}: {value}" for name, value in response.headers.items()]
    at = list(response.headers).index(hdrs.DATE)
    before = [f"HTTP/1.1 {response.status} {response.reason}", *headers[:at], f"{hdrs.DATE}: "]
    return "\r\n".join(before).encode(), "\r\n".join(["", *headers[at + 1 :], "", ""]).encode()


def _line(record: RequestRecord) -> LineTemplate | None:
    try:
        return LineTemplate("access", "request", record.fields(), VARYING)
    except LineFiltered:
        return None
