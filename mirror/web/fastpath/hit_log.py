"""The log of responses that the fast path has sent: metrics, access lines and last use, many at a time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from aiohttp import hdrs, web
from msgspec import Struct

from mirror.access.identity import Identity
from mirror.metrics.request_stats import RequestStats
from mirror.oci.digest import Digest
from mirror.util.log import LineFiltered, LineTemplate, timestamp, write_lines
from mirror.web.request_log import RequestRecord, new_id

if TYPE_CHECKING:
    from mirror.web.audit.audit_log import AuditLog, Entry
    from mirror.web.fastpath.logins import KnownLogin

# Sent responses are recorded together, after this many seconds or when this many are pending: many cost less
# than one by one. Soon enough for an operator who watches the log.
FLUSH_SECONDS = 0.05
MAX_PENDING = 50

# Longest time, in seconds, for which a response is known: the full path looks at each now and then.
LONGEST_LIFE_SECONDS = 30.0

# Fields that differ between the access lines of one response that is sent many times.
VARYING = ("id", "client", "bytes", "first_byte_ms", "total_ms", "timestamp")

# The same, of a response that clients with several logins get.
SHARED_VARYING = ("id", "client", "identity", "bytes", "first_byte_ms", "total_ms", "timestamp")


class KnownResponse(Struct, eq=False, kw_only=True):
    """A response that can be sent again, and what to record when it is.

    `expires`: by the clock of the cache that holds it. `removal_epoch`, `access_epoch`: the store's at lookup
    time; the response is invalid once one of them has changed; so is `push_epoch`, None where no push changes
    the response. `digest`: the blob whose use to record.
    `line`: of the access log, None when access lines are off. `client`: address in the head of the request,
    by the word of a proxy; None for the address of the connection. `names`: what the client has proven to be.
    `audit`: what the audit log has about it. `peer`: address of the only connections that get it, None for
    all: a refusal names the client. `fields`: of the access line, where people look at requests.
    """

    expires: float
    removal_epoch: int
    access_epoch: int
    stats: RequestStats
    push_epoch: int | None = None
    digest: Digest | None = None
    line: LineTemplate | None = None
    client: str | None = None
    names: tuple[str, ...] = ()
    audit: "Entry | None" = None
    peer: str | None = None
    fields: Mapping[str, object] | None = None


# Response, bytes of the body, address of the connection, seconds since 1970 and seconds taken, and whose
# login the request had, where the response does not tell that.
SentResponse = tuple[KnownResponse, int, str, tuple[float, float], "KnownLogin | None"]


class RequestWatch(Protocol):
    """The place where people look at requests (`mirror.web.activity.activity.Activity`)."""

    def begin(self, record: RequestRecord) -> None: ...

    def end(self, record: RequestRecord, fields: Mapping[str, object]) -> None: ...

    def note_sent(self, sent: list[SentResponse]) -> None: ...


class HitLog:
    """Responses that were sent and are not recorded yet."""

    def __init__(self, record_use: Callable[[Digest], None]) -> None:
        """`record_use`: called with the digest of sent content."""
        self._record_use = record_use
        self.audit: AuditLog | None = None
        # Asked before a response is sent, with the bytes of its body, if there are limits.
        self.limit: Callable[[Identity, int], bool] | None = None
        self.watch: RequestWatch | None = None  # where people look at requests
        self._pending: list[SentResponse] = []
        self._timer_running = False

    def passes(
        self, response: KnownResponse, client: str, length: int, login: "KnownLogin | None" = None
    ) -> bool:
        """Return whether limits let the response be sent now. `client`: address of the connection.

        `login`: of the request, where clients with several logins get the response.
        """
        if self.limit is None:
            return True
        names = response.names if login is None else login.names
        return self.limit(Identity(response.client or client, names), length)

    def audit_entry(self, record: RequestRecord) -> "Entry | None":
        """Return what the audit log will have about each such response."""
        return None if self.audit is None else self.audit.entry(record)

    def shown_fields(self, record: RequestRecord) -> Mapping[str, object] | None:
        """Return what people will see of each such response; None where nobody looks."""
        return None if self.watch is None else record.fields()

    def add(
        self,
        response: KnownResponse,
        length: int,
        client: str,
        times: tuple[float, float],
        login: "KnownLogin | None" = None,
    ) -> None:
        """Note a response that was sent just now: bytes of its body, the time, and the seconds that it took.

        `login`: as for `passes`.
        """
        pending = self._pending
        pending.append((response, length, client, times, login))
        if len(pending) >= MAX_PENDING:
            self.flush()
        elif not self._timer_running:
            self._timer_running = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_on_timer)

    def flush(self) -> None:
        """Record the sent responses: metrics, access lines, last use."""
        pending, self._pending = self._pending, []
        lines = []
        for response, length, client, (now, seconds), login in pending:
            number, address = new_id(), response.client or client
            if response.line is not None:
                # One conversion is three times as fast as rounding, and as two conversions of the result.
                taken = f"{seconds * 1000:.2f}" if response.line.in_order else round(seconds * 1000, 2)
                more = (length, taken, taken, timestamp(now))
                if login is None or not login.shown:
                    lines.append(response.line.fill((number, address, *more)))
                else:
                    lines.append(response.line.fill((number, address, login.shown, *more)))
            if response.audit is not None and self.audit is not None:
                event, fields = response.audit
                names = {} if login is None or not login.names else {"identity": list(login.names)}
                self.audit.repeat(
                    (event, {**fields, "bytes": length, **names}), number, address, seconds, now
                )
        self._count(pending)
        write_lines(lines)
        if self.watch is not None:
            self.watch.note_sent(pending)

    def _count(self, pending: Sequence[SentResponse]) -> None:
        """Record metrics and last use. Many in a row have the same labels, length and content."""
        batches: dict[tuple[int, int], tuple[RequestStats, list[float]]] = {}
        used: set[Digest | None] = set()
        durations: list[float] = []
        labels, size, content = None, -1, None
        for response, length, _, (_, seconds), _ in pending:
            if response.stats is not labels or length != size:
                labels, size = response.stats, length
                durations = batches.setdefault((id(labels), length), (labels, []))[1]
            durations.append(seconds)
            if response.digest is not content:
                content = response.digest
                used.add(content)
        for (_, length), (stats, taken) in batches.items():
            stats.add_batch(length, taken)
        for digest in used:
            if digest is not None:
                self._record_use(digest)

    def _flush_on_timer(self) -> None:
        self._timer_running = False
        self.flush()


def lifetime(record: RequestRecord, ttl: float) -> float:
    """Return how long, in seconds, the response may be sent again. `ttl`: how long its content may be."""
    return min(ttl, record.identity_ttl, LONGEST_LIFE_SECONDS)


def line_template(record: RequestRecord, *, shared: bool = False) -> LineTemplate | None:
    """Return the access line of a response that is sent many times; None when access lines are off.

    `shared`: to clients with several logins, whose names are filled in as JSON.
    """
    fields = record.fields()
    fields.pop("waited_ms", None)  # of that request alone
    try:
        if not shared:
            return LineTemplate("access", "request", fields, VARYING)
        if "identity" in fields:
            fields["identity"] = 0  # filled in as it is, without quotes
        return LineTemplate("access", "request", fields, SHARED_VARYING)
    except LineFiltered:
        return None


def client_behind_proxy(record: RequestRecord) -> str | None:
    """Return the client's address if that is not the address of the connection."""
    return record.client if record.client != (record.request.remote or "") else None


def split_at_date(response: web.StreamResponse) -> tuple[bytes, bytes]:
    """Return the head of a prepared response, as aiohttp writes it, before and after the value of Date."""
    headers = [f"{name}: {value}" for name, value in response.headers.items()]
    at = list(response.headers).index(hdrs.DATE)
    before = [f"HTTP/1.1 {response.status} {response.reason}", *headers[:at], f"{hdrs.DATE}: "]
    return "\r\n".join(before).encode(), "\r\n".join(["", *headers[at + 1 :], "", ""]).encode()
