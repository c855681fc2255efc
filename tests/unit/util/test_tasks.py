"""Background tasks: never lost, never silent, ended with their owner."""

import asyncio

import pytest
from structlog.testing import capture_logs

from mirror.util.tasks import Tasks, first_of, run_to_completion


async def test_task_failure_is_logged() -> None:
    """An exception is logged even if no caller awaits the task."""
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError("no")

    with capture_logs() as lines:
        task = tasks.spawn(fail(), name="failing")
        await asyncio.wait([task])
    assert [(line["task"], line["reason"]) for line in lines] == [("failing", "ValueError('no')")]
    await tasks.close()


async def test_tasks_close_cancels_everything_and_refuses_new_tasks() -> None:
    """Running tasks are cancelled and awaited, including tasks that they start while ending."""
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


async def test_run_to_completion_waits_for_the_work_when_cancelled() -> None:
    """A thread cannot be cancelled: the canceller waits until the work is done."""
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


async def test_run_to_completion_returns_the_result() -> None:
    """An undisturbed call is equal to awaiting the work."""
    assert await run_to_completion(asyncio.sleep(0, "result")) == "result"


async def test_first_of_cancels_the_others() -> None:
    """The first result ends the wait and cancels the others; `seconds` bounds the wait."""
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
