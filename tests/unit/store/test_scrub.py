"""The scrub: finds corrupt files before a client asks for them, and recreates lost entries."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store import scrub as scrub_module
from mirror.store.blobs import fsck
from mirror.store.blobs.fsck import CURSOR, Damage, FsckCursor, FsckStep, scrub_progress
from mirror.store.cache_dir import CacheDirectory
from mirror.store.lock import try_lock
from mirror.store.scrub import BUSY_FACTOR, Scrub, rate_cost
from mirror.util.rate_limiter import RateLimiter
from tests.unit.store.blobs.test_blobs import file_of
from tests.unit.store.test_eviction import put


@pytest.fixture
async def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CacheDirectory]:
    monkeypatch.setattr(fsck, "GRACE_SECONDS", -1.0)

    def opened() -> CacheDirectory:
        made = CacheDirectory(tmp_path / "cache")
        for data in (b"one", b"two", b"three"):
            put(made, tmp_path, data)
        made.close()
        return made

    made = await asyncio.to_thread(opened)
    yield made
    made.close()


def corrupt_file(folder: CacheDirectory) -> None:
    path = file_of(folder.path, Digest.of(b"two"))
    path.chmod(0o600)
    path.write_bytes(b"owt")


async def scrubbed(folder: CacheDirectory, rate: int) -> list[FsckStep]:
    steps: list[FsckStep] = []
    scrub = Scrub(folder, rate, steps.append, lambda: False)
    await scrub.run_once()
    await scrub.run_once()  # no pass is due this week
    await scrub._executor.close(folder.close)
    return steps


async def test_scrub_finds_and_quarantines_corrupt_files(folder: CacheDirectory) -> None:
    """A pass is due once a week."""
    await asyncio.to_thread(corrupt_file, folder)
    steps = await scrubbed(folder, 10**9)
    assert [step.finding.damage for step in steps if step.finding] == [Damage.DIGEST]
    assert sum(step.read for step in steps) == 11
    assert await asyncio.to_thread(lambda: len(list((folder.path / "quarantine").iterdir()))) == 1


def test_scrub_rate_counts_more_for_each_file() -> None:
    """A million small files are a million seeks: each counts for more than its bytes."""
    assert [
        rate_cost(FsckStep(100)),
        rate_cost(FsckStep(100, last=True)),
        rate_cost(FsckStep(last=True)),
    ] == [
        100,
        65_636,
        65_536,
    ]


async def test_scrub_is_off_at_rate_0(folder: CacheDirectory) -> None:
    """No pass runs at rate 0; otherwise one process of several scrubs."""
    assert await scrubbed(folder, 0) == []
    lock = await asyncio.to_thread(try_lock, folder.path / "scrub.lock")
    assert await scrubbed(folder, 10**9) == []
    assert lock is not None


async def test_scrub_recreates_entries_of_a_lost_database(folder: CacheDirectory, tmp_path: Path) -> None:
    """The files were there all the time; corrupt ones among them get no entry."""
    await asyncio.to_thread(corrupt_file, folder)

    def lose_database() -> CacheDirectory:
        (folder.path / "blobs" / "cache.db").write_bytes(b"no database" * 1000)
        again = CacheDirectory(folder.path)
        again.close()
        return again

    again = await asyncio.to_thread(lose_database)
    steps = await scrubbed(again, 0)
    found = sorted(step.finding.damage for step in steps if step.finding)
    assert found == [Damage.DIGEST, Damage.NO_ENTRY, Damage.NO_ENTRY]
    assert await asyncio.to_thread(again.reader.read, Digest.of(b"three"), 9) == b"three"
    assert not await asyncio.to_thread(lambda: again.recovery.needs_rebuild)
    await asyncio.get_running_loop().run_in_executor(None, again.close)


async def test_scrub_goes_on_where_it_stopped(folder: CacheDirectory) -> None:
    """A restart in mid-pass does not begin again, and one after a pass waits for the next."""
    path = folder.path / CURSOR
    cursor = FsckCursor(after=sorted(str(Digest.of(each)) for each in (b"one", b"two", b"three"))[1], bytes=7)
    await asyncio.to_thread(cursor.save, path)
    steps = await scrubbed(folder, 10**9)
    assert sum(step.last for step in steps) == 1
    progress = await asyncio.to_thread(scrub_progress, folder.path)
    assert progress is not None
    assert (progress.share, progress.checked, progress.wrong) == (1.0, 1, 0)
    assert await scrubbed(folder, 10**9) == []


async def test_scrub_tells_its_progress(folder: CacheDirectory) -> None:
    """Nothing before the first pass; a share of what was cached when the pass began."""
    assert await asyncio.to_thread(scrub_progress, folder.path) is None
    await asyncio.to_thread(FsckCursor(bytes=25, total=100).save, folder.path / CURSOR)
    progress = await asyncio.to_thread(scrub_progress, folder.path)
    assert progress is not None
    assert progress.share == 0.25


async def test_scrub_waits_after_a_start(folder: CacheDirectory) -> None:
    """Only lost entries are recreated at once."""
    steps: list[FsckStep] = []
    scrub = Scrub(folder, 10**9, steps.append)
    await scrub.run_once(rebuild_only=True)
    await scrub._executor.close(folder.close)
    assert steps == []


async def test_scrub_is_slower_on_a_busy_machine(
    folder: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte counts for more."""
    costs: dict[bool, list[int]] = {False: [], True: []}
    busy = False

    def pause(_: RateLimiter, size: int) -> float:
        costs[busy].append(size)
        return 0.0

    monkeypatch.setattr(RateLimiter, "pause", pause)
    for busy in costs:
        scrub = Scrub(folder, 10**9, busy=partial(bool, busy))
        await scrub.run_once()
        await asyncio.to_thread((folder.path / CURSOR).unlink)
        await scrub._executor.close(folder.close)
    assert costs[True] == [BUSY_FACTOR * each for each in costs[False]]


async def test_scrub_gives_way_to_the_recreation_of_entries(
    folder: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass takes days; a database that is lost meanwhile is recreated before the rest."""
    monkeypatch.setattr(scrub_module, "SAVE_SECONDS", -1.0)
    seen: list[FsckStep] = []

    def lose(step: FsckStep) -> None:
        seen.append(step)
        (folder.path / "rebuild").touch()

    scrub = Scrub(folder, 10**9, lose, lambda: False)
    await scrub.run_once()
    first = len(seen)
    progress = await asyncio.to_thread(scrub_progress, folder.path)
    assert progress is not None
    assert (first, progress.ended) == (1, 0.0)
    await scrub._executor.close(folder.close)
