"""How asking an upstream can fail, as the layers above need to tell the cases apart."""

from enum import StrEnum


class Failure(StrEnum):
    """What kind of failure; everything else is the message."""

    NOT_FOUND = "not_found"
    DENIED = "denied"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    INVALID = "invalid"
    OFFLINE = "offline"


# The same request may succeed later, or elsewhere, without anything else having changed.
_TEMPORARY = frozenset({Failure.RATE_LIMITED, Failure.UNREACHABLE, Failure.TIMEOUT, Failure.SERVER_ERROR})


class UpstreamError(Exception):
    """A failed request to an upstream. The message names the upstream and carries no secret.

    `status` is the upstream's HTTP status where there was one, `retry_after` the seconds it asked for.
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
        self.unanswered = False  # there was no answer at all, not even the beginning of one

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed if it is repeated later."""
        return self.failure in _TEMPORARY


class WrongBytes(UpstreamError):
    """What was sent is not what its digest names."""

    retry_elsewhere = (
        False  # whether there is a source that may have the right ones: it was not wrong about these
    )
