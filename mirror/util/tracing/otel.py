"""OpenTelemetry's SDK behind `spans.Tracing`: W3C trace context, a bounded queue, OTLP over HTTP."""

import logging
from collections.abc import Collection, Mapping, MutableMapping
from contextvars import ContextVar, Token
from threading import Timer
from typing import cast

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mirror import __version__
from mirror.util.log import get_logger
from mirror.util.throttle import Throttle
from mirror.util.tracing.spans import TRACE, OpenSpan, Value

log = get_logger(__name__)

# Time, in seconds, that one request to the collector may take.
EXPORT_SECONDS = 5

# Time, in seconds, in which the last spans are sent; then a mirror ends without them. What is being sent then
# takes EXPORT_SECONDS more at most.
CLOSE_SECONDS = 3.0

# Interval, in seconds, between lines of the log about spans that could not be sent.
COMPLAINT_SECONDS = 60.0

PROPAGATOR = TraceContextTextMapPropagator()

# The headers of a request that are read: the trace, and what systems of tracing say with it.
READ = (TRACE, "tracestate")


class OtelSpan:
    """A span of OpenTelemetry."""

    def __init__(self, span: Span) -> None:
        self.span = span

    def link(self, other: OpenSpan) -> None:
        self.span.add_link(cast("OtelSpan", other).span.get_span_context())

    def inject(self, headers: MutableMapping[str, str]) -> None:
        PROPAGATOR.inject(headers, set_span_in_context(self.span))

    def end(self, attributes: Mapping[str, Value], error: str | None = None, name: str = "") -> None:
        if not self.span.is_recording():  # it is not sampled, or has ended
            return
        if name:
            self.span.update_name(name)
        self.span.set_attributes(attributes)
        if error is not None:
            self.span.set_attribute("error.type", error)
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


CURRENT: ContextVar[OtelSpan | None] = ContextVar("span", default=None)


class Complaints(logging.Handler):
    """Takes what the SDK logs, of which one line a minute is enough."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._throttle = Throttle(COMPLAINT_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        if count := self._throttle.count():
            log.warning("spans not sent", reason=f"{record.name}: {record.getMessage()}"[:300], times=count)


class OtelTracing:
    """Spans that are sent to a collector in the background. `propagate`: upstreams that are told."""

    def __init__(self, endpoint: str, service: str, sample: float, propagate: Collection[str]) -> None:
        logger = logging.getLogger("opentelemetry")
        logger.handlers[:] = [Complaints()]
        logger.propagate = False
        ratio = TraceIdRatioBased(sample)
        # A client that says "sampled" gets no more than the ratio: its traces cost this mirror.
        sampler = ParentBased(ratio, remote_parent_sampled=ratio)
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("registry-mirror", __version__)
        self._propagate = frozenset(propagate)

    def request(self, name: str, headers: Mapping[str, str]) -> OtelSpan:
        carrier = {each: headers[each] for each in READ if each in headers}
        return self._begin(name, SpanKind.SERVER, PROPAGATOR.extract(carrier, Context()))

    def fill(self, attributes: Mapping[str, Value]) -> OtelSpan:
        return self._begin("fill", SpanKind.INTERNAL, self._context(), attributes)

    def upstream(self, name: str, attributes: Mapping[str, Value]) -> OtelSpan:
        return self._begin(name, SpanKind.CLIENT, self._context(), attributes)

    def propagates(self, upstream: str) -> bool:
        return upstream in self._propagate

    def enter(self, span: OpenSpan) -> Token[OtelSpan | None]:
        return CURRENT.set(cast("OtelSpan", span))

    def leave(self, before: object) -> None:
        CURRENT.reset(cast("Token[OtelSpan | None]", before))

    def current(self) -> OtelSpan | None:
        return CURRENT.get()

    def close(self) -> None:
        giving_up = Timer(CLOSE_SECONDS, self._exporter.shutdown)  # else each batch takes its whole time
        giving_up.daemon = True
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()

    def _context(self) -> Context:
        current = CURRENT.get()
        return Context() if current is None else set_span_in_context(current.span, Context())

    def _begin(
        self, name: str, kind: SpanKind, context: Context, attributes: Mapping[str, Value] | None = None
    ) -> OtelSpan:
        return OtelSpan(self._tracer.start_span(name, context, kind, attributes))
