"""Answers that several visitors share."""

import asyncio

import pytest

from mirror.web.activity.shared_answers import SharedAnswers


async def test_answer_is_shared_for_its_interval() -> None:
    """Visitors who ask at the same time wait for one answer; the next interval has another one."""
    now, asked, both_asked, gate = 10.0, list[str](), asyncio.Event(), asyncio.Event()

    async def ask(question: str) -> str:
        asked.append(question)
        if len(asked) == 2:
            both_asked.set()
        await gate.wait()
        return f"{question}{len(asked)}"

    shared = SharedAnswers(ask, 2.0, lambda: now)
    both = asyncio.gather(shared.get("a"), shared.get("a"), shared.get("b"))
    await both_asked.wait()
    gate.set()
    assert list(await both) == ["a2", "a2", "b2"]
    now = 11.9
    assert await shared.get("a") == "a2"
    now = 12.0
    assert await shared.get("a") == "a3"
    assert asked == ["a", "b", "a"]


async def test_visitor_who_leaves_or_fails_takes_no_answer_from_others() -> None:
    """The next one in turn asks itself."""
    asked, begun = 0, asyncio.Event()

    async def ask(question: str) -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            begun.set()
            await asyncio.Event().wait()
        if asked == 2:
            raise OSError(question)
        return asked

    shared = SharedAnswers(ask, 1.0, lambda: 5.0)
    leaving = asyncio.create_task(shared.get("a"))
    await begun.wait()
    others = asyncio.gather(shared.get("a"), shared.get("a"), return_exceptions=True)
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    failed, answered = await others
    assert (type(failed), answered) == (OSError, 3)
