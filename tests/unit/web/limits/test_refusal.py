"""Refusals by a limit: status, header, words, and what the access line says."""

import json

import pytest

from mirror.access.limits import Bounds, Limit, Per
from mirror.web.limits.refusal import LimitExceeded

LIMIT = Limit(2, "guests", Per.CLIENT, Bounds())


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.1, "2"), (3600.5, "3601")]
)
def test_refusal_tells_when_to_come_again(seconds: float, header: str) -> None:
    refusal = LimitExceeded(LIMIT, "requests", "too many requests", seconds)
    assert (refusal.status, refusal.headers) == (429, {"Retry-After": header})


def test_refusal_that_waiting_does_not_help_is_a_denial() -> None:
    refusal = LimitExceeded(LIMIT, "max_blob", "too large")
    error = json.loads(refusal.body())["errors"][0]
    assert (refusal.status, refusal.headers, error["code"]) == (403, {}, "DENIED")
    assert error["message"] == "too large (limit 'guests' of this mirror)"
    assert refusal.note == "limited by guests: max_blob"
