"""Metrics of several workers: their sum, which never decreases."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mirror.metrics import multiprocess
from mirror.metrics.families import Family, render
from mirror.metrics.metrics import Metrics
from mirror.metrics.multiprocess import MultiprocessMetrics


class Worker:
    """A worker with metrics of its own. A cleared `responsive` makes the worker hang."""

    def __init__(self, folder: Path, number: int) -> None:
        self.metrics = Metrics()
        self.multiprocess = MultiprocessMetrics(folder, number, self._collect)
        self.responsive = asyncio.Event()
        self.responsive.set()

    async def _collect(self) -> list[Family]:
        await self.responsive.wait()
        return await asyncio.to_thread(self.metrics.families)

    async def __aenter__(self) -> "Worker":
        await self.multiprocess.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.multiprocess.close()

    def die(self) -> None:
        """Die as by kill -9, without writing a last snapshot."""
        assert self.multiprocess._server is not None
        self.multiprocess._server.close()

    async def value(self, line: str) -> float:
        body, _ = render(await self.multiprocess.sum())
        found = [each for each in body.decode().splitlines() if each.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2])


FAILURES = 'registry_mirror_fill_failures_total{reason="disk"}'


def count(worker: Worker, times: int) -> None:
    worker.metrics.fill_failures.labels("disk").inc(times)


async def test_worker_metrics_are_summed(tmp_path: Path) -> None:
    """Any worker returns the current sum of counters and histograms."""
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


async def test_worker_gauges_are_merged_by_their_meaning(tmp_path: Path) -> None:
    """Running fills are summed; the cache is shared, so the scraped worker's value counts."""
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


async def test_worker_counters_survive_a_kill(tmp_path: Path) -> None:
    """A killed worker is still counted, and its successor continues from its reported counters."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Worker(tmp_path, 0))
        two = await Worker(tmp_path, 1).__aenter__()
        count(two, 5)
        assert await one.value(FAILURES) == 5
        count(two, 1)  # never scraped, and therefore lost
        two.die()
        assert await one.value(FAILURES) == 5
        three = await stack.enter_async_context(Worker(tmp_path, 1))
        assert await one.value(FAILURES) == 5
        count(three, 1)
        assert await three.value(FAILURES) == await one.value(FAILURES) == 6


async def test_worker_counters_survive_a_stop(tmp_path: Path) -> None:
    """A worker that stops writes a last snapshot, which the others return."""
    async with Worker(tmp_path, 0) as one:
        async with Worker(tmp_path, 1) as two:
            count(two, 2)
        assert await one.value(FAILURES) == 2


async def test_worker_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not answer counts with its previous snapshot."""
    monkeypatch.setattr(multiprocess, "REPLY_TIMEOUT", 0.01)
    async with Worker(tmp_path, 0) as one, Worker(tmp_path, 1) as two:
        count(two, 2)
        await two.multiprocess.write()
        count(two, 2)
        two.responsive.clear()
        assert await one.value(FAILURES) == 2
        two.responsive.set()


async def test_snapshots_are_written_periodically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots are written even without a scrape, so that a kill costs little."""
    monkeypatch.setattr(multiprocess, "WRITE_SECONDS", 0.001)
    async with Worker(tmp_path, 0) as one:
        count(one, 3)
        written = asyncio.Event()
        one.multiprocess._collect = _notifying(one.multiprocess._collect, written)
        writing = asyncio.ensure_future(one.multiprocess.write_periodically())
        await written.wait()
        writing.cancel()


def _notifying(
    collect: Callable[[], Awaitable[list[Family]]], written: asyncio.Event
) -> Callable[[], Awaitable[list[Family]]]:
    """Wrap `collect` to set `written` at the second call, by which time the first snapshot is written."""
    calls = iter([lambda: None, written.set])

    async def call() -> list[Family]:
        next(calls, written.set)()
        return await collect()

    return call
