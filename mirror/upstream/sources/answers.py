"""Answers of one source: requests that wait for one, silence, and the log of its outages."""

import contextlib
import math
import time
from collections.abc import Iterator

from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES, BreakerState, SourceHealth
from mirror.upstream.outage import Outage
from mirror.util.log import get_logger

# Outages are logged as those of the source, whose part this is.
log = get_logger("mirror.upstream.source")


class AnswerWatch:
    """The requests and answers of one source. They open and close its circuit breaker, in `health`."""

    def __init__(self, upstream: str, source: str, health: SourceHealth) -> None:
        self._upstream = upstream
        self._source = source
        self._health = health
        self._outage = Outage()
        self._last_answer = 0.0  # time of the last answer
        self._pending: dict[object, float] = {}  # start of each request that is not answered yet
        self._silence: UpstreamError | None = None  # the last failure, if there was no answer at all

    @contextlib.contextmanager
    def request(self) -> Iterator[float]:
        """Yield the start time of a pending request; raise UpstreamError while the source is unresponsive."""
        self.raise_if_unresponsive()
        request, began = object(), time.monotonic()
        self._health.record_request(began)
        self._pending[request] = began
        try:
            yield began
        finally:
            del self._pending[request]

    def report_timeout(self, seconds: float) -> bool:
        """Open the breaker if a client that waited `seconds` waited for this source; return True if it did.

        Pending requests go on: one that is answered after all closes the breaker.
        """
        began = min((each for each in self._pending.values() if each > self._last_answer), default=math.inf)
        if time.monotonic() - began <= seconds / 2:
            return False
        error = UpstreamError(Failure.TIMEOUT, f"{self._upstream}: no answer within {seconds:g} s")
        error.unanswered = True
        self.record_failure(error, FAILURES)
        return True

    def record(self, began: float) -> None:
        """Record the answer to a request that was sent at `began`."""
        self._last_answer = time.monotonic()
        self._health.record_success(self._last_answer - began)
        self._log_recovery(self._last_answer)

    def is_current(self, error: UpstreamError, began: float) -> bool:
        """Return False for silence that began before the last answer: that tells nothing about now."""
        return not error.unanswered or began > self._last_answer

    @property
    def unresponsive(self) -> bool:
        """True from a request that got no answer at all to the next answer."""
        return self._silence is not None and self._health.breaker(time.monotonic()) is not BreakerState.CLOSED

    def raise_if_unresponsive(self) -> None:
        """Raise the last failure while the breaker is open: clients do not wait for silence one by one."""
        silence = self._silence
        if silence is not None and self._health.breaker(time.monotonic()) is BreakerState.OPEN:
            # Not TIMEOUT: nothing was waited for, and so a request that follows at once finds nothing either.
            raise UpstreamError(Failure.UNREACHABLE, f"{silence} (will be tried again soon)")

    def record_failure(self, error: UpstreamError, times: int = 1) -> None:
        """Record a failed request, counted as `times` failures in a row.

        One that this machine could not send does not count.
        """
        if error.own:
            self._health.forget_request()
            return
        now = time.monotonic()
        self._silence = error.copy() if error.unanswered else None
        if error.failure is Failure.OFFLINE:
            return
        if error.temporary:
            self._health.record_failure(now, times)
            self._log_outage(now, str(error))
        else:
            self._last_answer = now
            self._health.record_success(self._health.latency)  # a refusal is an answer
            self._log_recovery(now)

    def _log_outage(self, now: float, reason: str) -> None:
        """Warn once when the breaker has opened; neither for each request nor each time that it flaps."""
        if self._health.breaker(now) is BreakerState.CLOSED:
            return
        count = self._outage.failed(now)
        if count is not None:
            flaps = {"outages": count} if count > 1 else {}
            event = "source fails, not used until it answers again"
            log.warning(event, upstream=self._upstream, source=self._source, reason=reason, **flaps)

    def _log_recovery(self, now: float) -> None:
        """Log once that the source answers after an outage that was logged."""
        seconds = self._outage.ended(now)
        if seconds is not None:
            log.info(
                "source answers again",
                upstream=self._upstream,
                source=self._source,
                seconds=round(seconds, 1),
            )
