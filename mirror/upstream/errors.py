"""Failures of requests to upstreams, told apart as far as the layers above need it."""

from enum import StrEnum


class Failure(StrEnum):
    """Kind of a failure; the message says the rest."""

    NOT_FOUND = "not_found"
    DENIED = "denied"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    INVALID = "invalid"
    OFFLINE = "offline"


# Failures that are an upstream's answer about content: it does not exist, or may not be read.
FINAL = frozenset({Failure.NOT_FOUND, Failure.DENIED})

# Failures after which the same request may succeed later, or at another source.
_TEMPORARY = frozenset({Failure.RATE_LIMITED, Failure.UNREACHABLE, Failure.TIMEOUT, Failure.SERVER_ERROR})


class UpstreamError(Exception):
    """A failed request to an upstream. The message names the upstream and carries no secret.

    `status` is the upstream's HTTP status if there was one, `retry_after` its Retry-After in seconds.
    `unanswered` is true if there was no answer at all, not even the beginning of one. `own` is true if this
    machine could not ask, for want of a descriptor for instance: that says nothing about the upstream.
    `hung_up` is true if the upstream took the request and closed the connection.
    `vague` is true if a refusal is not the registry's own word about the repository, but that of a token
    server, a firewall or a proxy, or is about this mirror's password: it takes nothing away that was public.
    `bad_request` is true if the registry itself answered 400: the request is wrong wherever it is sent.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.unanswered = False
        self.own = False
        self.hung_up = False
        self.vague = False
        self.bad_request = False

    def copy(self) -> "UpstreamError":
        """Return an equal error to keep or to raise elsewhere: this one's traceback holds frames."""
        copy = UpstreamError(self.failure, self.message, status=self.status, retry_after=self.retry_after)
        copy.unanswered, copy.own = self.unanswered, self.own
        copy.vague, copy.bad_request = self.vague, self.bad_request
        return copy

    @property
    def final(self) -> bool:
        """True if the registry itself says that the content does not exist, or may not be read."""
        return self.failure in FINAL and not self.vague

    @property
    def temporary(self) -> bool:
        """True if the same request may succeed when it is repeated later."""
        return self.failure in _TEMPORARY


# Retry-After, in seconds, for a request that was refused because too many wait: answers come all the time.
BUSY_RETRY_AFTER = 5.0


def too_many_requests(upstream: str) -> UpstreamError:
    """Return the error of a request that is not sent because too many wait for the upstream."""
    message = f"this mirror is busy: too many requests wait for {upstream}; try again in a few seconds"
    return UpstreamError(Failure.RATE_LIMITED, message, retry_after=BUSY_RETRY_AFTER)


class AnswerTooLong(UpstreamError):
    """The answer exceeds the most bytes that are read of its kind.

    `announced` is true if its Content-Length told so: then nothing of it was read.
    """

    announced = False


class WrongBytes(UpstreamError):
    """The bytes that were sent do not match their digest.

    `retry_elsewhere` is true if there is a source that has not sent wrong bytes for this digest.
    """

    retry_elsewhere = False


class WrongSize(UpstreamError):
    """The blob is of another size than was said of it; a new request for the blob goes by the new size."""


class SizeUnknown(UpstreamError):
    """The size of the blob is told by nothing but its end."""


# Answers of gateways that do not reach the registry.
_OUTAGES = frozenset({408, 502, 503, 504})


class HeadRefused(UpstreamError):
    """HEAD was answered with a failure, which has no words and may not be a GET's: only a GET tells."""

    @property
    def outage(self) -> bool:
        """True if a GET is likely to fail, too."""
        return self.hung_up or self.status in _OUTAGES
