"""The parts of a worker that need no process; tests/e2e/test_workers.py has the processes."""

import asyncio
import os

from mirror.server.worker import _stop_without_parent


async def test_worker_stops_when_its_parent_is_gone() -> None:
    """The end of the pipe to the parent is the sign."""
    parent, lifeline = os.pipe()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(parent, _stop_without_parent, parent, stop)
    assert not stop.is_set()
    os.close(lifeline)
    await stop.wait()
    assert not loop.remove_reader(parent)
    os.close(parent)
