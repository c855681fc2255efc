"""The ledger: the sum of what all workers have counted, which never becomes less."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mirror.metrics import multiprocess
from mirror.metrics.metrics import Family, Metrics, render
from mirror.metrics.multiprocess import MultiprocessMetrics


class Worker:
    """What has a ledger."""

    def __init__(self, folder: Path, number: int) -> None:
        self.metrics = Metrics()
        self.ledger = MultiprocessMetrics(folder, number, self._counted)
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def _counted(self) -> list[Family]:
        await self.hangs.wait()
        return await asyncio.to_thread(self.metrics.families)

    async def __aenter__(self) -> "Worker":
        await self.ledger.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ledger.close()

    def die(self) -> None:
        """As by kill -9: without a last word."""
        assert self.ledger._server is not None
        self.ledger._server.close()

    async def value(self, line: str) -> float:
        body, _ = render(await self.ledger.sum())
        found = [each for each in body.decode().splitlines() if each.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2])


FAILURES = 'registry_mirror_fill_failures_total{reason="disk"}'


def count(worker: Worker, times: int) -> None:
    worker.metrics.fill_failures.labels("disk").inc(times)


async def test_each_worker_tells_the_sum(tmp_path: Path) -> None:
    """Counters and histograms added up, as they are at this moment."""
    async with Worker(tmp_path, 0) as one, Worker(tmp_path, 1) as two:
        count(one, 1)
        count(two, 2)
        two.metrics.requests.of("blob", "hit").add(10, 0.002, 3.0)
        one.metrics.requests.of("blob", "hit").add(10, 0.002, 0.1)
        for each in (one, two):
            assert await each.value(FAILURES) == 3
            labels = 'kind="blob",outcome="hit"'
            assert await each.value(f"registry_mirror_requests_total{{{labels}}}") == 2
            bucket = 'registry_mirror_request_seconds_bucket{kind="blob",le="2.5",outcome="hit"}'
            assert await each.value(bucket) == 1
        count(two, 1)
        assert await one.value(FAILURES) == 4


async def test_gauges_are_not_all_added(tmp_path: Path) -> None:
    """Downloads of all are added; the cache is one, and is told by who is asked."""
    async with Worker(tmp_path, 0) as one, Worker(tmp_path, 1) as two:
        for each in (one, two):
            each.metrics.fills_running.inc()
            each.metrics.cache_bytes.set(100)
        two.metrics.source_up.labels("docker.io", "only.two").set(1)
        assert await one.value("registry_mirror_fills_running") == 2
        assert await one.value("registry_mirror_cache_bytes") == 100
        assert await one.value('registry_mirror_source_up{source="only.two",upstream="docker.io"}') == 1
        for each, trouble in ((one, 0), (two, 1)):
            each.metrics.cache_trouble.labels("write", "full").set(trouble)
        assert await one.value('registry_mirror_cache_trouble{kind="full",what="write"}') == 1
        two.die()
        assert await one.value("registry_mirror_fills_running") == 1


async def test_nothing_that_was_told_is_lost(tmp_path: Path) -> None:
    """A worker that is killed is still counted, and who has its number then goes on from there."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Worker(tmp_path, 0))
        two = await Worker(tmp_path, 1).__aenter__()
        count(two, 5)
        assert await one.value(FAILURES) == 5
        count(two, 1)  # nobody has heard of it
        two.die()
        assert await one.value(FAILURES) == 5
        three = await stack.enter_async_context(Worker(tmp_path, 1))
        assert await one.value(FAILURES) == 5
        count(three, 1)
        assert await three.value(FAILURES) == await one.value(FAILURES) == 6


async def test_the_last_word_of_who_leaves(tmp_path: Path) -> None:
    """What was counted until its end is told by the others."""
    async with Worker(tmp_path, 0) as one:
        async with Worker(tmp_path, 1) as two:
            count(two, 2)
        assert await one.value(FAILURES) == 2


async def test_who_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its page counts as it is."""
    monkeypatch.setattr(multiprocess, "PATIENCE", 0.01)
    async with Worker(tmp_path, 0) as one, Worker(tmp_path, 1) as two:
        count(two, 2)
        await two.ledger.write()
        count(two, 2)
        two.hangs.clear()
        assert await one.value(FAILURES) == 2
        two.hangs.set()


async def test_pages_are_written_though_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a kill costs little."""
    monkeypatch.setattr(multiprocess, "WRITE_SECONDS", 0.001)
    async with Worker(tmp_path, 0) as one:
        count(one, 3)
        written = asyncio.Event()
        one.ledger._snapshot = _telling(one.ledger._snapshot, written)
        keeping = asyncio.ensure_future(one.ledger.write_periodically())
        await written.wait()
        keeping.cancel()


def _telling(
    snapshot: Callable[[], Awaitable[list[Family]]], written: asyncio.Event
) -> Callable[[], Awaitable[list[Family]]]:
    """`snapshot`, that says when it is taken for the second time: the first page is written then."""
    calls = iter([lambda: None, written.set])

    async def call() -> list[Family]:
        next(calls, written.set)()
        return await snapshot()

    return call
