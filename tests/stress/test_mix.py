"""Everything at once, at random: a mirror with workers on a small disk, clients, commands, kills, a bad disk.

`--stress MINUTES` is the duration, `--stress-seed` repeats another run; a run ends with its seed.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.store.blobs import fsck
from mirror.store.blobs.fsck import HARMLESS, Fsck, FsckCursor
from mirror.store.cache_dir import CacheDirectory
from mirror.store.orphans import old_partials
from tests.disks import tmpfs
from tests.e2e.report import REPORT, Report
from tests.fakes.registry import FakeRegistry
from tests.stress.mix import Mix
from tests.stress.world import DISK, ROOT, World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("unshare", root=True),
    pytest.mark.timeout(0),  # as long as --stress says
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", DISK) as place:
        yield place


async def test_stress_everything_at_once(
    disk: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pull is right, no pinned blob is lost, the quota holds, no present blob is fetched again.

    Afterwards `verify` finds nothing, and leftovers can be removed.
    """
    report: Report = request.config.stash[REPORT]
    seconds = 60 * request.config.getoption("--stress")
    seed = request.config.getoption("--stress-seed") or random.randrange(2**32)
    report.notes.append(f"stress: --stress-seed {seed}")
    async with FakeRegistry() as hub:
        world = await asyncio.to_thread(World, tmp_path, hub)
        try:
            await world.mirror.start()
            await world.mirror.notified("READY=1")
            mix, began = Mix(world, seed), time.monotonic()
            while time.monotonic() - began < seconds:
                await mix.round()
        except BaseException:
            lines = (await world.mirror.logged()).splitlines()
            print("\n".join([each for each in lines if '"component": "access"' not in each][-100:]))
            raise
        finally:
            await world.mirror.close()
        report.notes.append(f"stress: {mix.rounds} rounds, {dict(world.met)}")
        assert await world.mirror.exit_status() == 0
        log = await world.mirror.logged()
        assert [line for line in log.splitlines() if "Traceback" in line or "task failed" in line] == []
        monkeypatch.setattr(fsck, "GRACE_SECONDS", -1.0)
        assert await asyncio.to_thread(faults_of, disk / "cache") == []


def faults_of(cache: Path) -> list[str]:
    """Return what is wrong in the folder of a stopped mirror."""
    unknown = [name for name in os.listdir(cache) if name not in ROOT]
    with closing(CacheDirectory(cache)) as folder:
        found = [f"trouble: {each}" for each in folder.health.faults()]
        for repair in (False, True):
            steps = list(Fsck(cache / "blobs", folder.blobs, FsckCursor(), repair=repair).steps())
            findings = [step.finding for step in steps if step.finding is not None]
            found += [f"{each.subject}: {each.damage}" for each in findings if each.damage not in HARMLESS]
        found += [f"after repair: {each}" for each in folder.blobs.check()]
        list(old_partials(cache / "partial", time.time() + 60, remove=True))
        found += [f"never removed: {each}" for each in os.listdir(cache / "partial")]
    return found + [f"left in the folder: {each}" for each in unknown]
