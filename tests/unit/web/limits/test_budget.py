"""Budgets of downloads: sums that workers share and that outlive a day's restarts, and fills at a time."""

import asyncio
from collections.abc import Mapping

import pytest

from mirror.access.limits import Bounds, Limit, Per, Shared
from mirror.system.shared_table import SharedTable
from mirror.util.tasks import Tasks
from mirror.web.limits import budget as module
from mirror.web.limits import places
from mirror.web.limits.budget import BATCH_BYTES, DAY_SECONDS, Budgets, Usage
from mirror.web.limits.refusal import LimitExceeded


class Book:
    """The sums on the disk; `broken`: nothing can be written."""

    def __init__(self) -> None:
        self.sums: dict[tuple[int, str], int] = {}
        self.broken = False

    async def write(self, day: int, amounts: Mapping[str, int]) -> Mapping[str, int]:
        if self.broken:
            return {}
        for name, amount in amounts.items():
            self.sums[day, name] = self.sums.get((day, name), 0) + amount
        return {name: self.sums[day, name] for name in amounts}


class Scene:
    """Workers on one book, with a limit, at a time of the test."""

    def __init__(self, bounds: Bounds) -> None:
        self.now = 10 * DAY_SECONDS + 100.0
        self.book = Book()
        self.tasks = Tasks()
        self.shared = [Shared(Limit(1, "guests", Per.CLIENT, bounds), "10.0.0.1")]
        self.table = SharedTable()

    def worker(self, number: int = 0) -> tuple[Budgets, Usage]:
        usage = Usage(self.book.write, self.tasks, lambda: self.now)
        return Budgets(self.table.row(number), usage), usage


async def test_quota_counts_what_other_workers_and_earlier_ones_have_used() -> None:
    scene = Scene(Bounds(upstream_bytes=100))
    for number in (0, 1):
        budgets, usage = scene.worker(number)
        budget = await budgets.of(scene.shared)
        assert budget is not None
        budget.check()
        budget.add(50)
        await usage.flush()
    assert budget is not None
    with pytest.raises(LimitExceeded) as refused:
        budget.check()
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"] == str(DAY_SECONDS - 100)
    await scene.tasks.close()


async def test_quota_begins_again_at_midnight() -> None:
    scene = Scene(Bounds(upstream_bytes=100))
    budgets, usage = scene.worker()
    budget = await budgets.of(scene.shared)
    assert budget is not None
    budget.add(100)
    with pytest.raises(LimitExceeded):
        budget.check()
    scene.now = 11 * DAY_SECONDS
    budget.check()
    budget.add(30)
    await usage.flush()
    assert scene.book.sums == {(10, "guests:10.0.0.1"): 0, (11, "guests:10.0.0.1"): 30}
    await scene.tasks.close()


async def test_use_is_written_in_batches_and_counted_at_once() -> None:
    scene = Scene(Bounds(upstream_bytes=10 * BATCH_BYTES))
    budgets, usage = scene.worker()
    budget = await budgets.of(scene.shared)
    assert budget is not None
    for _ in range(16):
        budget.add(BATCH_BYTES // 16 - 1)
    assert usage.used("guests:10.0.0.1") == BATCH_BYTES - 16
    assert scene.book.sums == {(10, "guests:10.0.0.1"): 0}
    budget.add(16)
    await asyncio.gather(*scene.tasks._running)
    assert scene.book.sums == {(10, "guests:10.0.0.1"): BATCH_BYTES}
    assert usage.used("guests:10.0.0.1") == BATCH_BYTES
    await scene.tasks.close()


async def test_use_that_cannot_be_written_is_counted_and_written_later() -> None:
    scene = Scene(Bounds(upstream_bytes=100))
    scene.book.broken = True
    budgets, usage = scene.worker()
    budget = await budgets.of(scene.shared)
    assert budget is not None
    budget.add(100)
    await usage.flush()
    with pytest.raises(LimitExceeded):
        budget.check()
    scene.book.broken = False
    await usage.flush()
    assert scene.book.sums == {(10, "guests:10.0.0.1"): 100}
    await scene.tasks.close()


async def test_downloads_that_outlive_the_sums_end_without_an_error() -> None:
    """A process ends its answers first, and its downloads behind them."""
    scene = Scene(Bounds(upstream_bytes=100))
    budgets, usage = scene.worker()
    budget = await budgets.of(scene.shared)
    assert budget is not None
    budget.add(10)
    await usage.close()
    assert sum(scene.book.sums.values()) == 10
    budget.add(BATCH_BYTES)
    assert scene.tasks.running == 0


async def test_names_whose_use_is_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was forgotten is read again."""
    monkeypatch.setattr(module, "MOST_KNOWN", 3)
    scene = Scene(Bounds(upstream_bytes=100))
    _, usage = scene.worker()
    for number in range(20):
        await usage.load(str(number))
        usage.add([str(number)], 1)
    assert len(usage._written) <= 4
    await usage.flush()
    await usage.load("3")
    assert usage.used("3") == 1
    await scene.tasks.close()


async def test_fills_wait_for_each_other_in_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LOOK_SECONDS", 3600.0)
    scene = Scene(Bounds(fills=1))
    budgets, _ = scene.worker()
    first, second = await budgets.of(scene.shared), await budgets.of(scene.shared)
    assert first is not None
    assert second is not None
    await first.wait_for_fill()
    end = first.begin_fill()
    waiting = asyncio.create_task(second.wait_for_fill())
    await asyncio.sleep(0)
    assert not waiting.done()
    end()
    end()
    await waiting


async def test_fills_of_other_workers_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks now and then whether another one's has ended, and refuses in the end."""
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.001)
    scene = Scene(Bounds(fills=1))
    first, second = await scene.worker(0)[0].of(scene.shared), await scene.worker(1)[0].of(scene.shared)
    assert first is not None
    assert second is not None
    end = first.begin_fill()
    monkeypatch.setattr(module, "LONGEST_FILL_WAIT", 0.0)
    with pytest.raises(LimitExceeded) as refused:
        await second.wait_for_fill()
    assert refused.value.note == "limited by guests: fills"
    end()
    await second.wait_for_fill()


async def test_client_without_bounds_on_downloads_has_no_budget() -> None:
    scene = Scene(Bounds(requests=1))
    assert await scene.worker()[0].of(scene.shared) is None
