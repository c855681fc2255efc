"""A line by a clock of the test: bytes are counted, no time is measured."""

import asyncio
from collections import Counter

import pytest

from mirror.util.fairness import line as module
from mirror.util.fairness.line import BURST_SECONDS, LEAST_SLICE, MOST_SLICE, Line

RATE = 1_000_000.0


class Clock:
    """A clock that goes on when the test says so; the line's own timers never ring."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Transfers:
    """Transfers that take bytes without end, by client."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.sent: Counter[str] = Counter()
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, client: str, count: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._run(client)) for _ in range(count)]

    async def _run(self, client: str) -> None:
        while True:
            taken = await self.line.take(client, 1 << 30)
            self.sent[client] += taken
            await asyncio.sleep(0)

    async def pass_time(self, clock: Clock, seconds: float, step: float = 0.05) -> None:
        """Let the clock go on, and grant what has come at each step."""
        for _ in range(round(seconds / step)):
            clock.now += step
            self.line.grant()
            for _ in range(3):
                await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture(autouse=True)
def _no_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "_set_timer", lambda self: None)


async def test_line_gives_its_rate_to_one_transfer() -> None:
    clock = Clock()
    transfers = Transfers(Line(RATE, clock=clock))
    transfers.start("a")
    await transfers.pass_time(clock, 10)
    await transfers.stop()
    assert RATE * 9.9 < transfers.sent["a"] <= RATE * (10 + BURST_SECONDS)


async def test_line_is_shared_by_client_and_not_by_connection() -> None:
    """A client with forty pulls gets as much as a client with one."""
    clock = Clock()
    transfers = Transfers(Line(RATE, clock=clock))
    transfers.start("many", 40)
    transfers.start("one")
    await transfers.pass_time(clock, 20)
    await transfers.stop()
    assert sum(transfers.sent.values()) <= RATE * (20 + BURST_SECONDS)
    assert abs(transfers.sent["many"] - transfers.sent["one"]) < RATE


async def test_line_leaves_the_rest_of_a_slow_client_to_the_others() -> None:
    """A client that asks seldom takes what it wants, and the line is not idle meanwhile."""
    clock = Clock()
    line = Line(RATE, clock=clock)
    transfers = Transfers(line)
    transfers.start("fast", 3)
    for _ in range(10):
        taken = asyncio.create_task(line.take("slow", 1000))
        await transfers.pass_time(clock, 1)
        assert await taken == 1000
    await transfers.stop()
    assert transfers.sent["fast"] > RATE * 9.8


async def test_line_serves_the_transfers_of_one_client_in_turn() -> None:
    clock = Clock()
    line = Line(RATE, clock=clock)
    sent: Counter[int] = Counter()

    async def run(number: int) -> None:
        while True:
            taken = await line.take("a", 1 << 30)
            sent[number] += taken

    tasks = [asyncio.create_task(run(number)) for number in range(5)]
    await Transfers(line).pass_time(clock, 20)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert max(sent.values()) - min(sent.values()) <= line.slice * 3


async def test_line_forgets_a_client_that_left_while_it_waited() -> None:
    """The turn of the client that left costs nothing, and the next client has the turn."""
    clock = Clock()
    line = Line(RATE, clock=clock)
    line.charge(int(RATE))
    left = asyncio.create_task(line.take("left", 1000))
    await asyncio.sleep(0)
    left.cancel()
    stays = asyncio.create_task(line.take("stays", 1000))
    await asyncio.gather(left, return_exceptions=True)
    clock.now += 2
    line.grant()
    assert await stays == 1000
    assert not line.in_debt


async def test_line_is_in_debt_after_bytes_that_did_not_wait() -> None:
    clock = Clock()
    line = Line(RATE, clock=clock)
    assert line.idle
    assert not line.in_debt
    line.charge(int(RATE))
    assert line.in_debt
    assert not line.idle
    clock.now += 0.9
    assert not line.in_debt


@pytest.mark.parametrize(("rate", "size"), [(20_000, LEAST_SLICE), (1e6, 100_000), (1e9, MOST_SLICE)])
async def test_line_slice_is_a_tenth_of_a_second_within_limits(rate: float, size: int) -> None:
    line = Line(rate, clock=Clock())
    assert line.slice == size
    assert await line.take("a", 1 << 30) == size


class Quarter:
    """A share of a quarter."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def share(self, active: int) -> float:
        self.seen.append(active)
        return 0.25


async def test_line_of_several_workers_has_the_share_of_its_active_clients() -> None:
    """The share is asked for with the number of clients that have asked lately."""
    clock, split = Clock(), Quarter()
    line = Line(RATE, split, clock)
    transfers = Transfers(line)
    transfers.start("a", 5)
    transfers.start("b")
    await transfers.pass_time(clock, 10)
    await transfers.stop()
    assert sum(transfers.sent.values()) <= RATE * (10 * 0.25 + BURST_SECONDS) + line.slice
    assert sum(transfers.sent.values()) > RATE * 10 * 0.25 * 0.95
    assert split.seen[-1] == 2
    clock.now += module.ACTIVE_SECONDS + module.SPLIT_SECONDS
    line.grant()
    assert split.seen[-1] == 0


async def test_line_rings_by_itself_when_it_has_bytes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    line = Line(RATE * 100)
    line.charge(int(RATE * 26))
    assert await line.take("a", 10) == 10
