"""Answers of a source: who is waited for, and what silence does."""

import time

import pytest
from structlog.testing import capture_logs

from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES, BreakerState, SourceHealth
from mirror.upstream.sources.answers import AnswerWatch


def watch() -> tuple[AnswerWatch, SourceHealth]:
    health = SourceHealth()
    return AnswerWatch("hub.test", "own", health), health


def test_timeout_counts_for_a_request_without_an_answer_only() -> None:
    answers, health = watch()
    assert not answers.report_timeout(0.0)
    with answers.request() as began:
        assert not answers.report_timeout(3600.0)
        assert answers.report_timeout(0.0)
        assert health.breaker(time.monotonic()) is BreakerState.OPEN
        answers.record(began)
    assert health.breaker(time.monotonic()) is BreakerState.CLOSED
    assert not answers.report_timeout(0.0)


def test_silence_refuses_further_requests_until_an_answer() -> None:
    answers, _ = watch()
    silence = UpstreamError(Failure.UNREACHABLE, "connection refused")
    silence.unanswered = True
    began = time.monotonic()
    with capture_logs() as lines:
        answers.record_failure(silence, FAILURES)
        assert answers.unresponsive
        with (
            pytest.raises(UpstreamError, match="connection refused"),
            answers.request(),
        ):
            raise AssertionError("the request was let through")
        answers.record(began)
    assert not answers.unresponsive
    assert not answers.is_current(silence, began)
    assert [line["event"] for line in lines] == [
        "source fails, not used until it answers again",
        "source answers again",
    ]


def test_failure_of_this_machine_is_no_silence() -> None:
    answers, health = watch()
    failure = UpstreamError(Failure.UNREACHABLE, "no free descriptor")
    failure.own = True
    answers.record_failure(failure, FAILURES)
    assert not answers.unresponsive
    assert health.breaker(time.monotonic()) is BreakerState.CLOSED
