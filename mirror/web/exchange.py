"""One request and what became of it: the access line and the metrics."""

import secrets
import time

from aiohttp import web

from mirror.cache.answers import Outcome
from mirror.log import get_logger
from mirror.metrics import Metrics
from mirror.oci.reference import Target

log = get_logger("access")


class Exchange:
    """Filled in as the request is understood and answered; reported once, at the end."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.id = secrets.token_hex(8)
        self.target: Target | None = None
        self.digest: str | None = None
        self.outcome = Outcome.ERROR
        self.status = 0
        self.bytes = 0
        self.note: str | None = None
        self.streaming = False  # a head was sent: what goes wrong now can only be told by ending early
        self._started = time.perf_counter()
        self._first_byte: float | None = None

    def first_byte(self) -> None:
        """The head of the answer is ready to go."""
        if self._first_byte is None:
            self._first_byte = time.perf_counter() - self._started

    def report(self, metrics: Metrics) -> None:
        total = time.perf_counter() - self._started
        first = total if self._first_byte is None else self._first_byte
        kind = self.target.kind.value if self.target else "other"
        outcome = self.outcome.value
        metrics.requests.labels(kind, outcome).inc()
        metrics.client_bytes.labels(kind).inc(self.bytes)
        metrics.first_byte_seconds.labels(kind, outcome).observe(first)
        metrics.request_seconds.labels(kind, outcome).observe(total)
        log.info("request", **self._fields(kind, first, total))

    def _fields(self, kind: str, first: float, total: float) -> dict[str, object]:
        fields: dict[str, object] = {
            "id": self.id,
            "client": self.request.remote,
            "method": self.request.method,
            "kind": kind,
            "status": self.status,
            "outcome": self.outcome.value,
            "bytes": self.bytes,
            "first_byte_ms": round(first * 1000, 2),
            "total_ms": round(total * 1000, 2),
        }
        if self.target is None:
            fields["path"] = self.request.raw_path.partition("?")[0][:200]
        else:
            fields["upstream"] = self.target.upstream
            if self.target.repository is not None:
                fields["repository"] = self.target.repository.path
            if self.target.reference is not None:
                fields["reference"] = str(self.target.reference)
        if self.digest is not None:
            fields["digest"] = self.digest
        if self.note is not None:
            fields["note"] = self.note
        return fields
