"""The bound on answers that are sent from memory."""

from contextlib import ExitStack
from functools import partial

import pytest

from mirror.web.connections import large_answers
from mirror.web.connections.large_answers import LARGE, LargeAnswers


@pytest.fixture(autouse=True)
def _three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_answers, "MOST", 3 * LARGE)


def test_answer_that_began_first_is_ended_where_there_are_too_many() -> None:
    """Answers that are over count no more; short ones never count."""
    answers, ended = LargeAnswers(), list[int]()
    with ExitStack() as stack:
        for number in range(100):
            stack.enter_context(answers.holding(LARGE - 1, partial(ended.append, -number)))
        for number in range(4):
            stack.enter_context(answers.holding(LARGE, partial(ended.append, number)))
        assert ended == [0]
        stack.enter_context(answers.holding(2 * LARGE, lambda: ended.append(4)))
        assert ended == [0, 1, 2]
    for number in range(10):
        with answers.holding(3 * LARGE, partial(ended.append, number)):
            pass
    assert ended == [0, 1, 2]


def test_answer_that_is_longer_than_all_may_be_is_sent_alone() -> None:
    answers, ended = LargeAnswers(), list[str]()
    with (
        answers.holding(LARGE, lambda: ended.append("first")),
        answers.holding(9 * LARGE, lambda: ended.append("second")),
    ):
        assert ended == ["first"]
