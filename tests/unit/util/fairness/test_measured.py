"""Measurement of steps: what counts, whose it is, and that the work does not notice."""

import asyncio

import pytest

from mirror.util.fairness import measured
from mirror.util.fairness.measured import run_measured


class Account:
    """The account of a request."""

    def __init__(self, *, measured: bool = True) -> None:
        self.measured = measured
        self.steps: list[float] = []

    def add(self, seconds: float) -> None:
        self.steps.append(seconds)


async def test_measured_work_is_charged_for_its_steps_and_not_for_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two steps with a wait between them: the time of the wait is in none."""
    account, go_on = Account(), asyncio.Event()

    async def work() -> str:
        await go_on.wait()
        return "result"

    clock = iter([1.0, 1.25, 50.0, 50.5])  # each step's begin and end
    monkeypatch.setattr(measured, "perf_counter", lambda: next(clock))
    running = asyncio.ensure_future(run_measured(work, account))
    await asyncio.sleep(0)
    go_on.set()
    assert await running == "result"
    assert account.steps == [0.25, 0.5]


async def test_measured_work_raises_and_catches_as_usual() -> None:
    """Exceptions go in and out, cancellation and time limits too."""

    async def fails() -> None:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            raise KeyError("out") from None

    account = Account()
    with pytest.raises(KeyError, match="out"):
        await run_measured(fails, account)
    assert account.steps
    cleaned = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    running = asyncio.ensure_future(run_measured(waits, account))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cleaned == [True]


async def test_tasks_of_measured_work_are_charged_to_the_same_account() -> None:
    """A look-up runs in a task of its own, which a request has started."""
    account = Account()

    async def look_up() -> int:
        before = len(account.steps)
        await run_measured(lambda: asyncio.sleep(0))
        return len(account.steps) - before

    async def request() -> int:
        return await asyncio.ensure_future(look_up())

    assert await run_measured(request, account) >= 2


async def test_unmeasured_work_is_charged_to_nobody() -> None:
    """Neither without an account, nor with one that does not count."""
    account = Account(measured=False)

    async def work() -> str:
        return await run_measured(done)

    async def done() -> str:
        return "result"

    assert await run_measured(work, account) == "result"
    assert await run_measured(work) == "result"
    assert account.steps == []
