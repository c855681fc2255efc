"""Removals from a cache over its quota, in a real run of `gc` and in a dry one."""

import os
import time
from pathlib import Path

import pytest

from mirror.manage import garbage_collector
from mirror.manage.garbage_collector import GarbageCollector
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.cached import X, age, interrupt, open_folder, put_image
from tests.unit.manage.test_garbage_collector import collect


def leave_partial(folder: CacheDirectory, name: bytes, size: int, received: int, seconds_ago: float) -> None:
    """Leave the download of a blob as a process does that is killed."""
    partial, _ = folder.fills.lock_partial(X, Digest.of(name))
    assert partial is not None
    partial.allocate(size, 65536)  # without a look at the quota
    partial.write(0, [b"x" * received], None)
    interrupt(partial)
    then = time.time() - seconds_ago
    for path in (partial.data_path, partial.data_path.with_suffix(".map")):
        os.utime(path, (then, then))


@pytest.mark.parametrize("seconds_ago", [60.0, 1200.0])
def test_quota_excess_takes_interrupted_downloads_first(tmp_path: Path, seconds_ago: float) -> None:
    """A quota of 500 KB, 3 small images, and 2 MB of which a killed mirror has brought 1.5: the images stay.

    The dry run says the same twice, with the bytes that are freed on the disk.
    """
    folder = open_folder(tmp_path / "cache", max_size=500_000)
    images = [put_image(folder, X, str(number), [bytes([number]) * 3000]) for number in range(3)]
    age(folder, *(digest for image in images for digest in image))
    leave_partial(folder, b"large", 2_000_000, 1_500_000, seconds_ago)
    said = list(GarbageCollector(folder, dry_run=True).items())
    assert said == list(GarbageCollector(folder, dry_run=True).items())
    assert [each.kind for each in said] == [garbage_collector.PARTIAL]
    assert 1_500_000 <= said[0].size < 1_600_000
    assert list(GarbageCollector(folder, dry_run=False).items()) == said
    assert folder.evictor.excess() == 0
    assert all(folder.blobs.has(digest) for image in images for digest in image)
    assert list(folder.partials.iterdir()) == []
    assert list(GarbageCollector(folder, dry_run=False).items()) == []
    folder.close()


def test_quota_excess_takes_no_more_downloads_than_it_must(tmp_path: Path) -> None:
    """The older one goes if that suffices; a running one stays, and blobs go if all that is not enough."""
    folder = open_folder(tmp_path / "cache", max_size=150_000)
    image = put_image(folder, X, "1", [b"1" * 3000])
    age(folder, *image)
    leave_partial(folder, b"older", 100_000, 100_000, 1200.0)
    leave_partial(folder, b"newer", 100_000, 100_000, 60.0)
    older = folder.partials / f"sha256-{Digest.of(b'older').encoded}.data"
    assert collect(folder, time.time()) == {garbage_collector.PARTIAL: 1}
    assert not older.exists()
    running, _ = folder.fills.lock_partial(X, Digest.of(b"running"))
    assert running is not None
    folder.fills.allocate(running, 149_000, 65536)
    running.write(0, [b"x" * 149_000], None)
    os.utime(running.data_path, (0, 0))
    assert collect(folder, time.time()) == {garbage_collector.PARTIAL: 1, garbage_collector.QUOTA: 3}
    assert running.data_path.exists()
    assert not folder.blobs.has(image[2])
    running.release()
    folder.close()
