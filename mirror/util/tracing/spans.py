"""Spans: one for each request, each fill and each request to an upstream; nothing where nobody wants traces.

`ACTIVE.tracing` is None then, and each call here costs a comparison. The span of a request is known in its
task and in what that starts; a fill's is known in the tasks of the fill, and outlives the request that
started it, as the fill does.
"""

from collections.abc import Mapping, MutableMapping
from typing import Protocol

# The header of the W3C trace context.
TRACE = "traceparent"

# Fields of the access line that a span has, by the names that they have there. Neither path nor note: others
# than operators read traces.
REQUEST_FIELDS = {
    "id": "registry_mirror.request_id",
    "kind": "registry_mirror.kind",
    "outcome": "registry_mirror.outcome",
    "upstream": "registry_mirror.upstream",
    "repository": "registry_mirror.repository",
    "reference": "registry_mirror.reference",
    "digest": "registry_mirror.digest",
    "waited_ms": "registry_mirror.waited_ms",
    "bytes": "http.response.body.size",
    "method": "http.request.method",
    "status": "http.response.status_code",
    "client": "client.address",
}

# A value of an attribute. Never a secret: no header, no query, no path of another host.
Value = str | int | float | bool


class OpenSpan(Protocol):
    """A span that has begun."""

    def link(self, other: "OpenSpan") -> None:
        """Note that this span waits for another one."""

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Add the W3C trace context to the headers of a request."""

    def end(self, attributes: Mapping[str, Value], error: str | None = None, name: str = "") -> None:
        """End the span, unless it has ended. `name`: instead of that which it began with."""


class Tracing(Protocol):
    """Maker and sender of spans."""

    def request(self, name: str, headers: Mapping[str, str]) -> OpenSpan:
        """Begin the span of a request, under that of the client, if `headers` have one."""

    def fill(self, attributes: Mapping[str, Value]) -> OpenSpan:
        """Begin the span of a fill, under that of the request that starts it."""

    def upstream(self, name: str, attributes: Mapping[str, Value]) -> OpenSpan:
        """Begin the span of a request to an upstream."""

    def propagates(self, upstream: str) -> bool:
        """Return whether an upstream gets the header traceparent."""

    def enter(self, span: OpenSpan) -> object:
        """Make a span the current one of this task; return what `leave` takes."""

    def leave(self, before: object) -> None:
        """Make the span before it the current one again."""

    def current(self) -> OpenSpan | None:
        """Return the span of this task."""

    def close(self) -> None:
        """Send what is left. Blocks."""


class ActiveTracing:
    """The tracing of this process, None for none."""

    tracing: Tracing | None = None


ACTIVE = ActiveTracing()


def close_tracing() -> None:
    """Send what is left, and trace nothing any more. Blocks."""
    tracing, ACTIVE.tracing = ACTIVE.tracing, None
    if tracing is not None:
        tracing.close()


def begin_fill(attributes: Mapping[str, Value]) -> OpenSpan | None:
    """Begin the span of a fill."""
    return None if ACTIVE.tracing is None else ACTIVE.tracing.fill(attributes)


def enter_fill(span: OpenSpan | None) -> None:
    """Make the span of a fill that of this task, which is the fill's own."""
    if span is not None and ACTIVE.tracing is not None:
        ACTIVE.tracing.enter(span)


def join_fill(span: OpenSpan | None) -> None:
    """Link the request of this task to the fill that it waits for."""
    if span is not None and ACTIVE.tracing is not None and (current := ACTIVE.tracing.current()) is not None:
        current.link(span)


def begin_request(headers: Mapping[str, str]) -> tuple[OpenSpan, object] | None:
    """Begin the span of a request, and make it that of this task; return what `end_request` takes."""
    if ACTIVE.tracing is None:
        return None
    span = ACTIVE.tracing.request("request", headers)
    return span, ACTIVE.tracing.enter(span)


def end_request(begun: tuple[OpenSpan, object] | None, fields: Mapping[str, object]) -> None:
    """End the span of a request. `fields`: those of its access line."""
    if begun is None or ACTIVE.tracing is None:
        return
    span, before = begun
    ACTIVE.tracing.leave(before)
    found = {REQUEST_FIELDS[each]: value for each, value in fields.items() if each in REQUEST_FIELDS}
    attributes = {name: value for name, value in found.items() if isinstance(value, Value)}
    status = fields.get("status")
    error = str(status) if isinstance(status, int) and status >= 500 else None
    span.end(attributes, error, f"{fields.get('method')} {fields.get('kind')}")


def is_traced(headers: Mapping[str, str]) -> bool:
    """Return whether a request is one of a client's trace, so that its head is like no other's."""
    return ACTIVE.tracing is not None and TRACE in headers


def begin_exchange(
    upstream: str, host: str, method: str, headers: Mapping[str, str], *, own: bool
) -> tuple[OpenSpan | None, Mapping[str, str]]:
    """Begin the span of a request to an upstream; return it with the headers to send.

    `own`: it goes to the upstream itself, and not where a redirect leads.
    """
    tracing = ACTIVE.tracing
    if tracing is None:
        return None, headers
    attributes = {"http.request.method": method, "server.address": host, "registry_mirror.upstream": upstream}
    span = tracing.upstream(f"{method} {upstream}", attributes)
    if own and tracing.propagates(upstream):
        told = dict(headers)
        span.inject(told)
        return span, told
    return span, headers


def end_exchange(span: OpenSpan | None, status: int | None, error: str | None = None) -> None:
    """End the span of a request to an upstream. `error`: the kind of failure."""
    if span is not None:
        span.end({} if status is None else {"http.response.status_code": status}, error)
