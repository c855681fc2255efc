"""Turns at the object store."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.shared.store_turns import StoreTurns, TurnWindow
from mirror.transfer.transfer import Transfer
from mirror.util.tasks import Tasks

GAPS = [Span(0, 10), Span(20, 30)]
GROWING = cast(GrowingFile, None)


def always() -> bool:
    return True


def transfer(name: str, *, urgent: bool = False) -> Transfer:
    made = Transfer(Digest.of(name.encode()), Repository("docker.io", "library/x"))
    made.urgent = urgent
    return made


def test_store_turns_of_what_no_client_waits_for() -> None:
    """A prefetch waits for what a client waits for, for nothing else, and never once a client wants it."""
    turns, idle, urgent = StoreTurns(), transfer("idle"), transfer("urgent", urgent=True)
    turns.add(idle, always)
    turns.add(transfer("idle too"), always)
    assert not turns.must_wait(idle)
    turns.add(urgent, always)
    assert turns.must_wait(idle)
    assert not turns.must_wait(urgent)
    idle.urgent = True
    assert not turns.must_wait(idle)
    idle.urgent = False
    urgent.parked = True  # its clients have the ranges that they asked for
    assert not turns.must_wait(idle)
    urgent.parked = False
    assert turns.must_wait(idle)
    turns.remove(urgent)
    turns.remove(urgent)
    assert not turns.must_wait(idle)


@pytest.mark.parametrize("other", ["idle", "urgent"])
def test_store_turns_are_of_what_reads_the_store(other: str) -> None:
    """The store failed, and one of the two is fetched from the upstream."""
    turns, idle, urgent, away = StoreTurns(), transfer("idle"), transfer("urgent", urgent=True), set[str]()
    turns.add(idle, lambda: "idle" not in away)
    turns.add(urgent, lambda: "urgent" not in away)
    assert turns.must_wait(idle)
    away.add(other)
    assert not turns.must_wait(idle)


@pytest.mark.parametrize("how", ["joined", "over", "left"])
async def test_store_turn_comes(how: str, tasks: Tasks) -> None:
    """A client comes for the blob, or there is no other that a client waits for."""
    turns, idle, urgent = StoreTurns(), transfer("idle"), transfer("urgent", urgent=True)
    turns.add(idle, always)
    turns.add(urgent, always)
    waiting = tasks.spawn(turns.wait(idle), name="wait")
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    if how == "joined":
        idle.hurry()
    elif how == "over":
        turns.remove(urgent)
    else:
        urgent.defer()
    await asyncio.wait_for(waiting, 10)


class Half:
    """The window of a fill that other mirrors follow."""

    def cut(self, growing: GrowingFile, gaps: Sequence[Span]) -> Sequence[Span]:
        return gaps[:1]


def test_turn_window_is_closed_while_the_blob_waits() -> None:
    turns, idle, urgent = StoreTurns(), transfer("idle"), transfer("urgent", urgent=True)
    turns.add(idle, always)
    assert TurnWindow(turns, idle, None).cut(GROWING, GAPS) == GAPS
    assert TurnWindow(turns, idle, Half()).cut(GROWING, GAPS) == GAPS[:1]
    turns.add(urgent, always)
    assert TurnWindow(turns, idle, Half()).cut(GROWING, GAPS) == ()
    assert TurnWindow(turns, urgent, Half()).cut(GROWING, GAPS) == GAPS[:1]
