"""Pushes and a power failure: the disk at one moment, without what the kernel has not written."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.opened import open_cache
from mirror.store.hosted.push_writer import PushWriter
from mirror.store.hosted.pushes import PushedManifest
from tests.disks import MIB, formatted, mount, mounted
from tests.hosting import APP

pytestmark = [pytest.mark.slow, pytest.mark.needs("mkfs.ext4", root=True)]

# Time between the commits of the file system's own journal, in seconds: it must not save what was not synced.
SELDOM = "remount,commit=600"


def pushed(number: int) -> PushedManifest:
    data = b'{"number":%d}' % number
    return PushedManifest(APP, Digest.of(data), data, OCI_MANIFEST, (Tag(f"t{number}"),))


@contextmanager
def after_a_power_failure(disk: Path) -> Iterator[Path]:
    """Mount a copy of the device of a mounted disk: it has what was written to it, and nothing else."""
    copy = disk.with_name("copy.image")
    shutil.copyfile(disk.with_name(f"{disk.name}.image"), copy)
    with mounted(disk.with_name("copy"), "-o", "loop", copy) as place:
        yield place


def test_push_survives_a_power_failure(tmp_path: Path) -> None:
    """Acknowledged pushes are whole after each of two batches: rows, link, file and sums."""
    with formatted(tmp_path / "disk", "ext4", 96 * MIB) as disk:
        mount("-o", SELDOM, disk)
        folder = open_cache(disk / "cache")
        index = HostedIndex(folder)
        index.names.register(["office"], [])
        writer = PushWriter(folder, index)
        for batch in (range(5), range(5, 12)):
            results = writer.put_manifests([pushed(number) for number in batch])
            assert all(isinstance(each, list) for each in results)
            with after_a_power_failure(disk) as copy:
                check(copy / "cache", batch.stop)
        writer._journal.close()
        folder.close()


def check(cache: Path, count: int) -> None:
    with closing(open_cache(cache)) as folder:
        for push in map(pushed, range(count)):
            entry = folder.index.tag(APP, push.tags[0])
            assert entry is not None
            assert entry.digest == str(push.digest)
            found = folder.reader.manifest(APP, push.digest)
            assert found is not None
            assert found.data == push.data
        held = sum(len(pushed(number).data) for number in range(count))
        assert HostedIndex(folder).queries.held("office") == held
        assert folder.blobs.retention.totals() == (held, count)
        assert [each for each in folder.blobs.check() if "unknown file" not in each] == []  # orphans
