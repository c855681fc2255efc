"""Failures of the shared tier's engines, told apart as far as its callers need it."""

from enum import StrEnum


class TierFault(StrEnum):
    """Kind of a failure; the message says the rest."""

    UNREACHABLE = "unreachable"  # no answer, a late one, or an answer that may be another one later
    LATE = "late"  # no answer in the time that was left to a request
    REFUSED = "refused"  # credentials or permissions
    UNFIT = "unfit"  # the engine does not do what is needed of it
    WRONG = "wrong"  # content that has not the digest that it stands under


class TierError(Exception):
    """A failed request to the object store or the coordinator. The message has no secret in it."""

    def __init__(self, fault: TierFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class ObjectMissing(TierError):
    """The object is not there, or no longer."""
