"""Intake of blobs: verified before they are kept, beside fills that run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manage.carry.intake import Intake
from mirror.manage.carry.sinks import BlobSink
from mirror.oci.digest import Digest
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import NoRoom
from mirror.store.partial.partial import Partial
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import age, open_folder, put_blob

SMALL, LARGE = random_bytes(5000, 1), random_bytes(900_000, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    assert opened.blobs.check() == []
    assert list(opened.partials.iterdir()) == []
    opened.close()


def deliver(sink: BlobSink | None, data: bytes, digest: Digest | None = None) -> bool:
    """Deliver content as the reader of an archive does; return whether it was wanted."""
    if sink is None:
        return False
    for start in range(0, len(data), 100_000):
        sink.write(memoryview(data)[start : start + 100_000])
    if digest in (None, Digest.of(data)):
        sink.commit()
    else:
        sink.abort()
    return True


def take(intake: Intake, data: bytes, sent: bytes | None = None) -> bool:
    digest = Digest.of(data)
    return deliver(intake.sink(digest, len(data)), data if sent is None else sent, digest)


@pytest.mark.parametrize("data", [SMALL, LARGE, b""], ids=["small", "large", "empty"])
def test_intake_keeps_a_blob(folder: CacheDirectory, data: bytes) -> None:
    """The blob has its digest, and counts as one that came with an account; a second one is not read."""
    intake = Intake(folder)
    assert take(intake, data)
    assert not take(intake, data)
    intake.flush()
    assert intake.stored == {Digest.of(data): len(data)}
    assert folder.reader.read(Digest.of(data), 1_000_000) == data
    assert folder.blobs.origin(Digest.of(data)) is Origin.PRIVATE


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("end", [b"x", b""], ids=["wrong", "short"])
def test_intake_keeps_nothing_that_is_not_proven(folder: CacheDirectory, data: bytes, end: bytes) -> None:
    """A blob with another digest, and one that is cut short, leave nothing."""
    intake = Intake(folder)
    assert take(intake, data, data[:-1] + end)
    intake.flush()
    assert not folder.reader.has(Digest.of(data))


def test_intake_adopts_small_blobs_together(folder: CacheDirectory) -> None:
    """All are here in the end, whatever their number."""
    blobs = [b"%d" % number for number in range(150)]
    intake = Intake(folder)
    for each in blobs:
        assert take(intake, each)
        assert intake.has(Digest.of(each))
    intake.flush()
    assert all(folder.reader.has(Digest.of(each)) for each in blobs)


def test_intake_disturbs_no_running_fill(folder: CacheDirectory) -> None:
    """The fill of another process keeps its partial; the import has the blob first."""
    digest = Digest.of(LARGE)
    fill = Partial.lock(digest, folder.partials)
    assert fill is not None
    chunks = folder.fills.allocate(fill, len(LARGE), 64 * 1024, public=True)
    fill.write(0, [LARGE[:1000]], None)
    chunks.record(0, 1000)
    assert take(Intake(folder), LARGE)
    assert (chunks.received(), os.pread(fill.descriptor, 1000, 0)) == (1000, LARGE[:1000])
    assert folder.reader.read(digest, 1_000_000) == LARGE
    fill.discard()
    fill.release()


def test_intake_takes_over_an_interrupted_fill(folder: CacheDirectory) -> None:
    """Bytes that a fill has left are written over: they may be wrong."""
    fill = Partial.lock(Digest.of(LARGE), folder.partials)
    assert fill is not None
    chunks = folder.fills.allocate(fill, len(LARGE), 64 * 1024, public=True)
    fill.write(0, [b"?" * 1000], None)
    chunks.record(0, 1000)
    fill.release()
    assert take(Intake(folder), LARGE)


def test_intake_respects_the_quota(tmp_path: Path) -> None:
    """A blob that the quota can never hold is refused, and nothing is evicted for it."""
    folder = open_folder(tmp_path / "cache", max_size=500_000)
    intake = Intake(folder)
    assert take(intake, SMALL)
    with pytest.raises(NoRoom):
        take(intake, LARGE)
    intake.flush()
    assert folder.reader.has(Digest.of(SMALL))
    assert list(folder.partials.iterdir()) == []
    folder.close()


def test_intake_evicts_above_the_quota(tmp_path: Path) -> None:
    """The least recently used blobs go, and what was imported stays."""
    folder = open_folder(tmp_path / "cache", max_size=1_000_000)
    old = put_blob(folder, random_bytes(400_000, 3))
    age(folder, old)
    intake = Intake(folder)
    assert take(intake, LARGE)
    assert (folder.reader.has(old), folder.reader.has(Digest.of(LARGE))) == (False, True)
    folder.close()
