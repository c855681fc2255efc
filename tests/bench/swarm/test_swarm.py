"""The simulation of many mirrors, in a short version; nothing of it depends on the machine's speed."""

import asyncio
from dataclasses import replace

import pytest

from tests.bench.swarm import clock
from tests.bench.swarm.lines import Line, LineCut, transfer
from tests.bench.swarm.simulation import simulate
from tests.bench.swarm.site import Plan

MIB = 1024 * 1024

PLAN = Plan(mirrors=50, layers=4, layer_bytes=16 * MIB, within=10, kills=0, flush=False)


def test_swarm_has_each_byte_from_the_upstream_once() -> None:
    """All mirrors have the image in the end, and the upstream has sent it once."""
    outcome = simulate(PLAN)
    assert outcome.figures.upstream_bytes == PLAN.layers * PLAN.layer_bytes
    assert outcome.figures.fills_upstream == PLAN.layers
    assert len(outcome.figures.finished) == PLAN.mirrors
    assert "upstream: 1.000 images" in "\n".join(outcome.lines())


def test_swarm_reads_from_the_store_as_soon_as_it_has_a_layer() -> None:
    """Mirrors that follow another one leave its line: else all of them share it to the end, for 20 s."""
    outcome = simulate(replace(PLAN, within=1))
    assert len(outcome.figures.finished) == PLAN.mirrors
    assert outcome.seconds < 15  # of simulated time


def test_swarm_survives_kills_and_a_flush_the_same_way_each_time() -> None:
    """All that were not killed have the image; each trouble costs no more than the image once more."""
    plan = replace(PLAN, mirrors=20, kills=2, flush=True)
    first, second = simulate(plan), simulate(plan)
    assert first.figures.killed >= 1
    assert len(first.figures.finished) == plan.mirrors - first.figures.killed
    assert 1.0 <= first.upstream <= 1.0 + plan.kills + plan.flush
    assert first.figures == second.figures
    assert first.seconds == second.seconds


def test_line_is_shared_equally() -> None:
    """Two flows on one line take twice as long as one; the slower line of a flow decides."""

    async def work() -> list[float]:
        loop = asyncio.get_running_loop()
        slow, fast = Line(loop, 10.0), Line(loop, 1000.0)
        await asyncio.gather(transfer(100, slow), transfer(100, slow, fast))
        both = loop.time()
        await transfer(100, slow)
        return [both, loop.time() - both]

    both, alone = clock.run(work())
    assert both == pytest.approx(20, rel=0.05)
    assert alone == pytest.approx(10, rel=0.05)


def test_line_that_is_cut_ends_its_flows() -> None:
    """A flow fails when its line is cut, and so does each later one."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        line = Line(loop, 10.0)
        loop.call_later(1.0, line.cut)
        for _ in range(2):
            with pytest.raises(LineCut):
                await transfer(100, line)
        assert loop.time() == pytest.approx(1.0)

    clock.run(work())


def test_clock_that_stands_still_is_an_error() -> None:
    """A simulation whose tasks all wait for each other ends with an error, in place of never."""

    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(clock.StoppedClock):
        clock.run(work())
