"""Failures of upstreams."""

import pytest

from mirror.upstream.errors import Failure, UpstreamError


@pytest.mark.parametrize(
    ("failure", "temporary"),
    [
        (Failure.NOT_FOUND, False),
        (Failure.DENIED, False),
        (Failure.INVALID, False),
        (Failure.RATE_LIMITED, True),
        (Failure.UNREACHABLE, True),
        (Failure.TIMEOUT, True),
        (Failure.SERVER_ERROR, True),
    ],
)
def test_temporary_failures(failure: Failure, temporary: bool) -> None:
    """A failure that may pass is worth another attempt."""
    assert UpstreamError(failure, "message").temporary is temporary


def test_error_message_and_attributes() -> None:
    """An error prints as its message and carries status and retry_after."""
    error = UpstreamError(Failure.RATE_LIMITED, "too many", status=429, retry_after=3.0)
    assert (str(error), error.status, error.retry_after) == ("too many", 429, 3.0)
