"""Memory of a mirror levels off, and a container that keeps what it evicts is found."""

import asyncio
from pathlib import Path

import pytest

from tests.fuzz.cases import Case, Request, Way
from tests.fuzz.client import Conversation
from tests.fuzz.content import GOOD, image_of
from tests.fuzz.level import GROWTH_BYTES, JUDGED_FROM, growth, level_fault
from tests.fuzz.mirrors import MirrorUnderTest
from tests.fuzz.origin import Origin

MIB = 2**20

# Repositories of a round.
NAMES = 100


def test_level_is_judged_by_the_least_of_the_quarters() -> None:
    """Requests of the moment are no growth, and neither is what fills the containers in the first quarter."""
    busy = [(number, 50 * MIB + (number % 3) * 9 * MIB) for number in range(1, 100)]
    assert growth(busy) == 0
    assert growth([(number, min(number, 20) * MIB) for number in range(1, 100)]) == 0
    assert growth([(number, number * MIB) for number in range(1, 101)]) == 50 * MIB


@pytest.mark.parametrize(
    ("requests", "workers", "more", "found"),
    [
        (2 * JUDGED_FROM, 2, 2 * GROWTH_BYTES + 1, True),
        (2 * JUDGED_FROM, 2, 2 * GROWTH_BYTES, False),
        (2 * JUDGED_FROM - 1, 2, 99 * MIB, False),
    ],
)
def test_level_fault_is_told_of_long_runs(requests: int, workers: int, more: int, found: bool) -> None:
    samples = [(number * requests // 100, more * (number > 60)) for number in range(101)]
    assert (level_fault(samples, workers) is not None) == found


def test_level_of_no_samples_is_no_fault() -> None:
    assert level_fault([], 1) is None


async def flood(mirror: MirrorUnderTest, first: int) -> None:
    """Ask for the manifest, the referrers and the tags of names that nobody has asked for."""
    requests = []
    for number in range(first, first + NAMES):
        name = f"flood/c{number}"
        digest = image_of(GOOD, name).manifest
        for tail in ("manifests/latest", f"manifests/{digest}", "tags/list", f"referrers/{digest}"):
            requests.append(Request(f"GET /v2/{name}/{tail} HTTP/1.1\r\nHost: a\r\n\r\n".encode()))
    heard = await Conversation.hold(Case(0, tuple(requests), Way.IN_TURN), "127.0.0.1", mirror.port)
    assert heard.statuses == [200] * len(requests)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_flood_of_names_leaves_memory_level_and_a_leak_does_not(tmp_path: Path) -> None:
    """A worker has no more in use after 300 names than after 100, but where evicted entries stay."""
    grown = {}
    async with Origin() as origin:
        for bounds in ("small", "leaking"):
            mirror = await asyncio.to_thread(MirrorUnderTest, tmp_path / bounds, origin.url, "c", 1, bounds)
            await asyncio.to_thread(mirror.start)
            try:
                await flood(mirror, 0)
                before = await asyncio.to_thread(mirror.live)
                for place in range(1, 3):
                    await flood(mirror, place * NAMES)
                grown[bounds] = await asyncio.to_thread(mirror.live) - before
            finally:
                await asyncio.to_thread(mirror.stop)
    assert grown["small"] < MIB
    assert grown["leaking"] > 1.3 * MIB
