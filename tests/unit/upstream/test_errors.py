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
def test_temporary(failure: Failure, temporary: bool) -> None:
    """Only what may pass by itself is worth another attempt."""
    assert UpstreamError(failure, "message").temporary is temporary


def test_message_and_facts() -> None:
    """An error reads as its message and carries what the layers above decide by."""
    error = UpstreamError(Failure.RATE_LIMITED, "too many", status=429, retry_after=3.0)
    assert (str(error), error.status, error.retry_after) == ("too many", 429, 3.0)
