"""Steps and calls: in the caller's thread, or in the facade's thread for an event loop."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress

import pytest

from mirror.manage.steps import BATCH_STEPS, Call, Steps, StepThread
from mirror.util.callbacks import ignore
from mirror.util.progress.amounts import ProgressAmount
from tests.programs import without_coverage


@pytest.fixture
async def worker() -> AsyncIterator[StepThread]:
    opened = StepThread()
    yield opened
    await opened.close(ignore)


def names(count: int) -> Iterator[str]:
    """Yield the name of the thread that takes each step."""
    for _ in range(count):
        yield threading.current_thread().name


async def test_steps_run_in_the_callers_thread(worker: StepThread) -> None:
    """A command needs no other thread. Each iteration begins again."""
    steps = Steps(worker, lambda: names(3))
    here = threading.current_thread().name
    assert [*steps, *steps] == [here] * 6
    assert steps.progress == ProgressAmount(3)


async def test_steps_run_in_one_thread_for_an_event_loop(worker: StepThread) -> None:
    """All batches of all use cases are done by the same thread; none is lost."""
    count = 3 * BATCH_STEPS + 1
    steps = Steps(worker, lambda: names(count))
    found = [each async for each in steps]
    assert (len(found), len({*found})) == (count, 1)
    assert found[0] != threading.current_thread().name
    assert await Call(worker, lambda: threading.current_thread().name) == found[0]
    assert steps.progress == ProgressAmount(count)


async def test_steps_raise_their_error(worker: StepThread) -> None:
    """The steps before it are not lost where each is a batch of its own, and the generator is closed."""

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        assert [each async for each in Steps(worker, failing)] == []
    with pytest.raises(ValueError, match="why"):
        Call(worker, lambda: next(failing()) and int("why")).now()


class Operation:
    """Steps that a test lets go one by one, and that note their end."""

    def __init__(self) -> None:
        self.turn = threading.Semaphore(0)
        self.begun = threading.Event()
        self.taken = 0
        self.closed = ""

    def steps(self) -> Iterator[int]:
        try:
            while True:
                self.begun.set()
                self.turn.acquire()
                self.taken += 1
                yield self.taken
        finally:
            self.closed = threading.current_thread().name


async def test_steps_are_cancelled_between_two_steps(worker: StepThread) -> None:
    """The running step is finished, no further one is begun, and the use case cleans up in its thread."""
    operation = Operation()

    async def all_steps() -> None:
        async for _ in Steps(worker, operation.steps):
            pass

    running = asyncio.ensure_future(all_steps())
    await asyncio.to_thread(operation.begun.wait)
    running.cancel()
    await asyncio.sleep(0)
    for _ in range(3):
        operation.turn.release()
    with suppress(asyncio.CancelledError):
        await running
    assert running.cancelled()
    assert (operation.taken, operation.closed[:4]) == (1, "disk")


async def test_steps_are_closed_by_a_caller_that_leaves(worker: StepThread) -> None:
    """The use case does not go on behind the caller's back, in an event loop and without one."""
    for _ in range(2):
        operation = Operation()
        operation.turn.release(BATCH_STEPS)
        async with aclosing(aiter(Steps(worker, operation.steps))) as steps:
            assert await anext(steps) == 1
        assert operation.closed.startswith("disk")
    operation = Operation()
    operation.turn.release()
    here = iter(Steps(worker, operation.steps))
    next(here)
    here.close()
    assert operation.closed == threading.current_thread().name


async def test_steps_import_no_asyncio() -> None:
    """A command that looks at the cache starts without an event loop's modules."""
    program = "import sys, mirror.manage.management; print('asyncio' in sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=without_coverage()
    )
    assert (await process.communicate())[0] == b"False\n"
