"""One request and what became of it: the access line and the metrics."""

import itertools
import os
import re
import secrets
import time

from aiohttp import web

from mirror.cache.results import Outcome
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Target
from mirror.util.log import get_logger

log = get_logger("access")

# What a request target in absolute form may have in front of the host: user and password.
USER = re.compile(r"(?<=://)[^/]*@")

_ids = itertools.count(secrets.randbits(62))


def _begin_elsewhere() -> None:
    """Workers are forked, and must not count on from the same number."""
    global _ids  # noqa: PLW0603  # of this process
    _ids = itertools.count(secrets.randbits(62))


os.register_at_fork(after_in_child=_begin_elsewhere)


def new_id() -> str:
    """Of a request: 16 hex digits, none twice while this process lives."""
    return f"{next(_ids):016x}"


class RequestRecord:
    """Filled in as the request is understood and answered; reported once, at the end."""

    def __init__(self, request: web.BaseRequest, removed: int = 0) -> None:
        self.request = request
        self.removed = removed  # what the cache's removals were at (store.generation) when it came
        self.id = new_id()
        self.target: Target | None = None
        self.digest: Digest | None = None
        self.outcome = Outcome.ERROR
        self.status = 0
        self.bytes = 0
        self.note: str | None = None
        self.lasts = 0.0  # for how many seconds the same request has the same answer
        self.streaming = False  # a head was sent: what goes wrong now can only be told by ending early
        self._started = time.perf_counter()
        self._first_byte: float | None = None

    def first_byte(self) -> None:
        """The head of the answer is ready to go."""
        if self._first_byte is None:
            self._first_byte = time.perf_counter() - self._started

    @property
    def kind(self) -> str:
        return self.target.kind.value if self.target else "other"

    def report(self, metrics: Metrics) -> None:
        total = time.perf_counter() - self._started
        first = total if self._first_byte is None else self._first_byte
        metrics.requests.of(self.kind, self.outcome.value).add(self.bytes, first, total)
        log.info("request", **self.fields(first, total))

    def fields(self, first: float = 0.0, total: float = 0.0) -> dict[str, object]:
        """Of the access line. `first` and `total`: seconds to the head of the answer, and to its end."""
        fields: dict[str, object] = {
            "id": self.id,
            "client": self.request.remote,
            "method": self.request.method,
            "kind": self.kind,
            "status": self.status,
            "outcome": self.outcome.value,
            "bytes": self.bytes,
            "first_byte_ms": round(first * 1000, 2),
            "total_ms": round(total * 1000, 2),
        }
        if self.target is None:
            fields["path"] = USER.sub("", self.request.raw_path.partition("?")[0])[:200]
        else:
            fields["upstream"] = self.target.upstream
            if self.target.repository is not None:
                fields["repository"] = self.target.repository.path
            if self.target.reference is not None:
                fields["reference"] = str(self.target.reference)
        if self.digest is not None:
            fields["digest"] = str(self.digest)
        if self.note is not None:
            fields["note"] = self.note
        return fields
