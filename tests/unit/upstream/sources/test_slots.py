"""Connections for blobs of a source."""

import asyncio

from mirror.upstream.sources.slots import SourceSlots
from mirror.util.slots import SlotPool


async def test_slots_count_those_that_are_held() -> None:
    """The one that waits gets the connection that is given back."""
    slots, reached = SourceSlots(SlotPool(8), 1), asyncio.Event()

    async def second() -> None:
        async with slots.hold(on_wait=lambda waits: reached.set() if waits else None):
            assert slots.active == 1

    async with slots.hold():
        waiting = asyncio.ensure_future(second())
        await reached.wait()
        assert (slots.active, slots.saturated, slots.is_waited_for) == (1, True, True)
    await waiting
    assert (slots.active, slots.saturated, slots.is_waited_for) == (0, False, False)
