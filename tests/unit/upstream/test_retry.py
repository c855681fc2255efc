"""Retries of requests to upstreams."""

from datetime import UTC, datetime

import pytest

from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.retry import LONGEST_WAIT, Retrier, RetryPolicy, parse_retry_after, retry_after_in
from tests.fakes.upstream import FakeTime

RESET = UpstreamError(Failure.UNREACHABLE, "reset")


class Flaky:
    """Operation that fails with the given errors in turn, then returns "done"."""

    def __init__(self, *errors: UpstreamError) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def retrier(time: FakeTime, policy: RetryPolicy | None = None, jitter: float = 0.999999) -> Retrier:
    return Retrier(policy or RetryPolicy(), time, time.sleep, lambda: jitter)


async def test_retry_delays_grow() -> None:
    """Each delay is twice the one before."""
    time = FakeTime()
    operation = Flaky(RESET, RESET)
    assert await retrier(time)(operation) == "done"
    assert [round(pause, 3) for pause in time.slept] == [0.25, 0.5]


async def test_retry_attempts_are_limited() -> None:
    """After the last attempt the caller gets the failure itself."""
    operation = Flaky(RESET, RESET, RESET)
    with pytest.raises(UpstreamError) as raised:
        await retrier(FakeTime())(operation)
    assert raised.value is RESET
    assert operation.calls == 3


@pytest.mark.parametrize("failure", [Failure.NOT_FOUND, Failure.DENIED, Failure.INVALID])
async def test_retry_is_for_temporary_failures_only(failure: Failure) -> None:
    """A permanent failure ends after one attempt."""
    operation = Flaky(UpstreamError(failure, "final"))
    with pytest.raises(UpstreamError):
        await retrier(FakeTime())(operation)
    assert operation.calls == 1


async def test_retry_after_that_is_short_is_honoured() -> None:
    """The upstream's Retry-After replaces the computed delay."""
    time = FakeTime()
    await retrier(time)(Flaky(UpstreamError(Failure.RATE_LIMITED, "slow down", retry_after=2.0)))
    assert time.slept == [2.0]


async def test_retry_after_that_is_long_is_passed_on() -> None:
    """No client waits for minutes: the error carries the time."""
    time = FakeTime()
    operation = Flaky(UpstreamError(Failure.RATE_LIMITED, "slow down", retry_after=60.0))
    with pytest.raises(UpstreamError) as raised:
        await retrier(time)(operation)
    assert raised.value.retry_after == 60.0
    assert (operation.calls, time.slept) == (1, [])


async def test_retry_elapsed_time_is_bounded() -> None:
    """Attempts that take long are not repeated, even if some are left."""
    time = FakeTime()
    operation = Flaky(RESET, RESET)

    async def slow() -> str:
        time.now += 11.9
        return await operation()

    with pytest.raises(UpstreamError):
        await retrier(time)(slow)
    assert operation.calls == 1


def test_retry_jitter_halves_at_most() -> None:
    """The delay lies between half of the computed one and all of it, and never above the longest."""
    policy = RetryPolicy(attempts=100)
    assert policy.delay(1, RESET, 0.0) == pytest.approx(0.125)
    assert policy.delay(1, RESET, 1.0) == pytest.approx(0.25)
    assert policy.delay(50, RESET, 1.0) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("9" * 400, LONGEST_WAIT),
        ("864000", LONGEST_WAIT),
        ("Mon, 23 Nov 2099 12:00:00 GMT", LONGEST_WAIT),
        ("1.16676ms", 0.00116676),
        ("1m30.5s", 90.5),
        ("44h", LONGEST_WAIT),
        ("1.5", None),
        ("-1", None),
        ("soon", None),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 12:00:30 -0000", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Thu, 0 Jan 0 2147483648:00:00 GMT", None),
    ],
)
def test_retry_after_header(value: str | None, expected: float | None) -> None:
    """Seconds and dates are parsed, a date in the past is now, and nonsense is None."""
    assert parse_retry_after(value, datetime(2026, 11, 23, 12, tzinfo=UTC)) == expected


@pytest.mark.parametrize(
    ("body", "wait"),
    [
        (
            b'{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 1.16676ms, allowed: 44/minute"}]}',
            "1.16676ms",
        ),
        (b'{"errors":[{"code":"TOOMANYREQUESTS","detail":{"retry_after":"1m2s"}}]}', "1m2s"),
        (b'{"retryAfter": 7}', "7"),
        ("retry-after: 812.4\u00b5s".encode(), "812.4\u00b5s"),
        (b"Retry-After: Mon, 23 Nov 2026", None),
        (b"retry after a while", None),
        (b"retry-after: 1.5parsecs", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_retry_after_in_the_words_of_an_error(body: bytes, wait: str | None) -> None:
    """A wait in the message or in the detail is found; other words are no wait."""
    assert retry_after_in(body) == wait
