"""The limiter by a clock of the test: who waits how long, who is refused, and what several workers share."""

import asyncio
from collections.abc import Mapping

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.access.identity import Identity
from mirror.access.limits import Bounds, Limit, LimitTable, Per
from mirror.metrics.metrics import Metrics
from mirror.system.shared_table import SharedTable
from mirror.web.limits import places
from mirror.web.limits.limiter import LONGEST_WAIT, Limiter
from mirror.web.limits.refusal import LimitExceeded
from mirror.web.request_log import RequestRecord

CLIENT = Identity("10.0.0.1")


class Clock:
    """A clock that goes on when the test says so, or somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def wait(self, seconds: float) -> None:
        self.waits.append(round(seconds, 6))


async def write(day: int, amounts: Mapping[str, int]) -> Mapping[str, int]:
    return amounts


def workers(clock: Clock, count: int, bounds: Bounds, per: Per = Per.CLIENT) -> list[Limiter]:
    """Return the limiters of several workers."""
    table, limits = SharedTable(clock), LimitTable([Limit(1, "guests", per, bounds)])
    found = [Limiter(limits, Metrics(), write, table.row(number)) for number in range(count)]
    for each in found:
        each.pause = clock.wait
        each.longest_wait = LONGEST_WAIT if bounds.connections is None else 0.0
    return found


def record(identity: Identity = CLIENT) -> RequestRecord:
    found = RequestRecord(make_mocked_request("GET", "/v2/"))
    found.identity = identity
    return found


async def admit(limiter: Limiter, identity: Identity = CLIENT) -> RequestRecord:
    found = record(identity)
    async with limiter.admitted(found):
        return found


async def test_requests_wait_for_their_time_and_are_refused_beyond_the_longest_wait() -> None:
    """Two workers are one bucket: the burst at once, then one request after the other, then 429."""
    clock = Clock()
    first, second = workers(clock, 2, Bounds(requests=1.0, burst=2))
    for limiter in (first, second):
        await admit(limiter)
    assert clock.waits == []
    for _ in range(int(LONGEST_WAIT) // 2):
        for limiter in (first, second):
            await admit(limiter)
    assert clock.waits == [float(number) for number in range(1, int(LONGEST_WAIT) + 1)]
    with pytest.raises(LimitExceeded) as refused:
        await admit(first)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "11")
    clock.now += 5
    assert (await admit(second)).waited == 6


async def test_request_that_is_refused_takes_nothing() -> None:
    """Containerd repeats a refused request five times at once: that costs its client no later time."""
    clock = Clock()
    (limiter,) = workers(clock, 1, Bounds(requests=0.05, burst=1))
    await admit(limiter)
    for _ in range(6):
        with pytest.raises(LimitExceeded):
            await admit(limiter)
    clock.now += 20
    assert (await admit(limiter)).waited == 0


async def test_answers_from_memory_pass_only_without_a_wait() -> None:
    (limiter,) = workers(Clock(), 1, Bounds(requests=1.0, burst=3))
    assert [limiter.passes(CLIENT, 10) for _ in range(4)] == [True, True, True, False]
    assert limiter.passes(Identity("10.0.0.2"), 10)


async def test_answers_from_memory_go_over_the_line() -> None:
    """A body may make a debt, and the next one is no answer from memory."""
    clock = Clock()
    (limiter,) = workers(clock, 1, Bounds(bandwidth=100_000))
    assert limiter.passes(CLIENT, 1_000_000)
    assert not limiter.passes(CLIENT, 1)
    clock.now += 10
    assert limiter.passes(CLIENT, 1)


async def test_connections_of_all_workers_are_counted_and_given_back() -> None:
    first, second = workers(Clock(), 2, Bounds(connections=2))
    async with first.admitted(record()), second.admitted(record()):
        for limiter in (first, second):
            assert not limiter.passes(CLIENT, 1)
            with pytest.raises(LimitExceeded) as refused:
                await admit(limiter)
            assert refused.value.status == 429
        assert first.passes(Identity("10.0.0.2"), 1)
        await admit(first, Identity("10.0.0.2"))
    await admit(first)
    assert first.passes(CLIENT, 1)


async def test_connections_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a place has that of the first one that ends, and its line says that it waited."""
    monkeypatch.setattr(places, "LOOK_SECONDS", 3600.0)
    clock = Clock()
    (limiter,) = workers(clock, 1, Bounds(connections=1))
    limiter.longest_wait = 3600.0
    async with limiter.admitted(record()):
        waiting = asyncio.create_task(admit(limiter))
        await asyncio.sleep(0)
        clock.now += 3
        assert not waiting.done()
    assert (await waiting).waited == 3


async def test_connections_of_failed_and_cancelled_requests_are_given_back() -> None:
    (limiter,) = workers(Clock(), 1, Bounds(connections=1))
    with pytest.raises(ZeroDivisionError):
        async with limiter.admitted(record()):
            raise ZeroDivisionError
    started = asyncio.Event()

    async def hold() -> None:
        async with limiter.admitted(record()):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await admit(limiter)


async def test_refusals_are_counted_by_limit_and_bound() -> None:
    (limiter,) = workers(Clock(), 1, Bounds(requests=0.01, burst=1))
    await admit(limiter)
    with pytest.raises(LimitExceeded) as refused:
        await admit(limiter)
    assert refused.value.note == "limited by guests: requests"
    body, _ = await asyncio.to_thread(limiter._metrics.render)
    assert b'registry_mirror_limited_total{bound="requests",limit="guests"} 1.0' in body


async def test_bandwidth_of_several_workers_is_split_by_their_clients() -> None:
    """Three clients in one worker and one in the other: three quarters and a quarter of the rate."""
    clock = Clock()
    limiters = workers(clock, 2, Bounds(bandwidth=1_000_000), Per.ALL)
    sent = [0, 0]

    async def pull(worker: int, address: str) -> None:
        found = await admit(limiters[worker], Identity(address))
        assert found.pacer is not None
        while True:
            taken = await found.pacer.take(1 << 20)
            sent[worker] += taken

    clients = [(0, "10.0.0.1"), (0, "10.0.0.2"), (0, "10.0.0.3"), (1, "10.0.0.4")]
    tasks = [asyncio.create_task(pull(*each)) for each in clients]
    for step in range(1200):
        if step == 200:  # the workers know of each other
            sent[:] = [0, 0]
        clock.now += 0.01
        await asyncio.sleep(0)
        for limiter in limiters:
            for line in limiter._lines._lines.values():
                line.grant()
        for _ in range(3):
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 0.7 < sent[0] / sum(sent) < 0.8
    assert 9_000_000 < sum(sent) < 11_000_000


async def test_scope_of_connections_has_the_limits_that_refuse_content() -> None:
    (limiter,) = workers(Clock(), 1, Bounds(blob=1))
    assert limiter.scoped(lambda peer, names: (7, *names))("10.0.0.1", ("user:x",)) == (
        7,
        "user:x",
        "limit 1",
    )
