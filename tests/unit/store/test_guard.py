"""Retries of disk work, where they help, and reports of its failures."""

import errno
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.store import recovery
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import NoRoom, PartialLost, ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.guard import DiskGuard
from mirror.store.health import Capability
from mirror.util.callbacks import ignore


class Disk:
    """Disk work that fails as often as a test says."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[int] = []  # how much room was requested

    def work(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def make_room(self, need: int) -> None:
        self.asked.append(need)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
async def executor() -> AsyncIterator[DiskExecutor]:
    executor = DiskExecutor(1)
    yield executor
    await executor.close(ignore)


async def attempts(executor: DiskExecutor, tmp_path: Path, disk: Disk) -> DiskGuard:
    def opened() -> CacheDirectory:
        with closing(CacheDirectory(tmp_path / "cache")) as folder:
            return folder

    folder = await executor.run(opened)
    return DiskGuard(executor, folder.recovery, folder.health, disk.make_room)


async def test_write_is_retried_once_with_more_room(executor: DiskExecutor, tmp_path: Path) -> None:
    """A full disk gets more room, once."""
    disk = Disk(FULL)
    attempt = await attempts(executor, tmp_path, disk)
    assert (await attempt.write(disk.work), disk.asked) == ("done", [0])
    disk.errors = [FULL, FULL]
    with pytest.raises(StoreError):
        await attempt.write(disk.work)
    assert disk.asked == [0, 0]


async def test_write_of_a_blob_that_is_too_large_evicts_nothing(
    executor: DiskExecutor, tmp_path: Path
) -> None:
    """A blob that could not be kept whatever went is no reason to evict."""
    disk = Disk(NoRoom("large"))
    attempt = await attempts(executor, tmp_path, disk)
    with pytest.raises(NoRoom):
        await attempt.write(disk.work)
    assert disk.asked == []


async def test_best_effort_stops_after_a_write_failure(executor: DiskExecutor, tmp_path: Path) -> None:
    """A write that cannot be done is not tried again until the disk works."""
    disk = Disk(OSError(errno.EROFS, "read-only"))
    attempt = await attempts(executor, tmp_path, disk)
    assert not await attempt.best_effort(disk.work)
    assert (disk.asked, attempt.is_writable) == ([], False)
    assert not await attempt.best_effort(disk.work)
    attempt._health.clear_fault(Capability.WRITING)
    assert await attempt.best_effort(disk.work)


async def test_read_or_takes_a_failing_disk_for_a_miss(executor: DiskExecutor, tmp_path: Path) -> None:
    """The content is then asked of the upstream."""
    disk = Disk(OSError(errno.EIO, "io"))
    attempt = await attempts(executor, tmp_path, disk)
    assert await attempt.read_or("nothing", disk.work) == "nothing"
    assert attempt.is_writable


async def test_write_failure_that_is_not_the_disks_is_not_reported(
    executor: DiskExecutor, tmp_path: Path
) -> None:
    """The mirror stops, or another process gave up its fill."""
    attempt = await attempts(executor, tmp_path, Disk())
    for error in (ShuttingDown("bye"), PartialLost("gone")):
        attempt.report_write_failure(error)
    assert attempt.is_writable
    attempt.report_write_failure(StoreError("really"))
    assert not attempt.is_writable


async def test_recovery_evicts_nothing_when_the_disk_has_room_again(
    executor: DiskExecutor, tmp_path: Path
) -> None:
    """Files of another program were in the way, and have gone: no blob has to."""
    disk = Disk()
    attempt = await attempts(executor, tmp_path, disk)
    attempt._health.report_fault(Capability.WRITING, FULL)
    await attempt.recover()
    assert (disk.asked, attempt.is_writable) == ([], True)


async def test_recovery_makes_room_while_the_disk_is_full(
    executor: DiskExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some room is made, once for each call, as long as nothing can be written."""

    def refuse(*_: object) -> None:
        raise FULL

    disk = Disk()
    attempt = await attempts(executor, tmp_path, disk)
    attempt._health.report_fault(Capability.WRITING, FULL)
    monkeypatch.setattr(recovery, "try_allocate", refuse)
    await attempt.recover()
    assert (disk.asked, attempt.is_writable) == ([0], False)


async def test_recover_uses_connections_from_a_read_only_time_no_more(
    executor: DiskExecutor, tmp_path: Path
) -> None:
    """The disk was full, then read-only, and works: the look that finds the second fault ends it too."""
    attempt = await attempts(executor, tmp_path, Disk())
    attempt.report_write_failure(StoreError("full").with_traceback(None))
    database = attempt._recovery._blobs
    await executor.run(lambda: database.cache._sql("PRAGMA query_only = 1"))
    await attempt.recover()
    assert attempt.is_writable
    await executor.run(database.close)
