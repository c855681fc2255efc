"""Background tasks: never lost, never silent, ended with their owner."""

import asyncio

import pytest
from structlog.testing import capture_logs

from mirror.util.tasks import Tasks, first_of, run_to_completion


async def test_what_a_task_raises_is_logged() -> None:
    """Even when nobody awaits it."""
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError("no")

    with capture_logs() as lines:
        task = tasks.spawn(fail(), name="failing")
        await asyncio.wait([task])
    assert [(line["task"], line["reason"]) for line in lines] == [("failing", "ValueError('no')")]
    await tasks.close()


async def test_close_ends_everything_and_takes_no_more() -> None:
    """Running tasks are cancelled and waited for, those they start on the way out included."""
    tasks = Tasks()
    ended = []

    async def run(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    for name in ("a", "b"):
        tasks.spawn(run(name), name=name)
    await asyncio.sleep(0)
    await tasks.close()
    assert sorted(ended) == ["a", "b"]
    with pytest.raises(RuntimeError, match="cannot start c: shutting down"):
        tasks.spawn(run("c"), name="c")


async def test_to_the_end_waits_for_the_work_when_cancelled() -> None:
    """A thread cannot be called back: the canceller waits until it is through."""
    release, began = asyncio.Event(), asyncio.Event()
    finished = []

    async def work() -> None:
        began.set()
        await release.wait()
        finished.append(True)

    waiting = asyncio.ensure_future(run_to_completion(work()))
    await began.wait()
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert finished == [True]


async def test_to_the_end_gives_the_result() -> None:
    """Undisturbed, it is the work itself."""
    assert await run_to_completion(asyncio.sleep(0, "result")) == "result"


async def test_the_first_of_several_ends_the_waiting() -> None:
    """The others are cancelled; and nothing is waited for longer than was said."""
    first, second, cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        try:
            await second.wait()
        finally:
            cancelled.set()

    first.set()
    await first_of(first.wait(), wait())
    assert cancelled.is_set()
    await first_of(second.wait(), seconds=0.001)
