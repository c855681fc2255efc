"""A partial that another process fills: read without its lock, and never misread."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from tests.fakes.cached import interrupt

DIGEST = Digest.of(b"x")
SIZE, CHUNK = 100, 10


@pytest.fixture
def partial(tmp_path: Path) -> Partial:
    """Return a partial as a fill writes it."""
    locked = Partial.lock(DIGEST, tmp_path)
    assert locked is not None
    locked.allocate(SIZE, CHUNK)
    return locked


@pytest.fixture
def followed(partial: Partial, tmp_path: Path) -> Iterator[RemotePartial]:
    found = RemotePartial.open(DIGEST, tmp_path)
    assert found is not None
    yield found
    found.close()


def record(partial: Partial, offset: int, length: int) -> None:
    assert partial.chunks is not None
    partial.chunks.record(offset, length)


def test_remote_partial_shows_new_bytes(partial: Partial, followed: RemotePartial) -> None:
    """Counts are those of now; the map is the same object while nothing has changed."""
    record(partial, 0, 15)
    seen = followed.refresh()
    assert (seen.contiguous(), seen.received(), seen.verified) == (15, 15, False)
    assert followed.refresh() is seen
    assert partial.chunks is not None
    partial.chunks.set_verified()
    assert followed.refresh().verified


def test_remote_partial_restarted_has_another_epoch(partial: Partial, followed: RemotePartial) -> None:
    """Truncating the map under a follower does not kill it."""
    record(partial, 0, 15)
    before = followed.refresh()
    os.ftruncate(followed.map, 0)
    assert followed.refresh() is before
    partial.allocate(SIZE, CHUNK)
    assert followed.refresh().contiguous() == 0


def test_remote_partial_epochs_differ(partial: Partial, followed: RemotePartial) -> None:
    """Each allocation differs from the one before."""
    before = followed.refresh().epoch
    partial.allocate(SIZE, CHUNK)
    assert followed.refresh().epoch == before + 1


def test_remote_partial_requests_missing_bytes(partial: Partial, followed: RemotePartial) -> None:
    """A request is for the next byte of its chunk, and ends once that is here, or no reader waits."""
    assert partial.chunks is not None
    record(partial, 50, 3)
    followed.request(57)
    assert partial.chunks.requests.offsets() == [53]
    record(partial, 53, 7)
    assert partial.chunks.requests.offsets() == []
    followed.request(99)
    assert partial.chunks.requests.offsets() == [90]
    followed.request(None)
    assert partial.chunks.requests.offsets() == []


def test_remote_partial_repeats_an_overwritten_request(
    partial: Partial, followed: RemotePartial, tmp_path: Path
) -> None:
    """More processes than slots take turns."""
    other = RemotePartial.open(DIGEST, tmp_path)
    assert other is not None
    assert partial.chunks is not None
    followed.request(20)
    other.request(30)
    assert partial.chunks.requests.offsets() == [30]
    followed.refresh()
    followed.request(20)
    assert partial.chunks.requests.offsets() == [20]
    other.close()


def test_remote_partial_is_none_without_a_fill(partial: Partial, tmp_path: Path) -> None:
    """No partial, a partial without a size, and one that was verified, perhaps by a process that died."""
    assert RemotePartial.open(Digest.of(b"y"), tmp_path) is None
    empty = Partial.lock(Digest.of(b"z"), tmp_path)
    assert empty is not None
    assert RemotePartial.open(Digest.of(b"z"), tmp_path) is None
    empty.release()
    assert partial.chunks is not None
    partial.chunks.set_verified()
    assert RemotePartial.open(DIGEST, tmp_path) is None


def test_remote_partial_with_data_of_another_size_is_none(partial: Partial, tmp_path: Path) -> None:
    """A map that is older than its data says nothing about it."""
    os.ftruncate(partial.descriptor, SIZE - 1)
    assert RemotePartial.open(DIGEST, tmp_path) is None


def test_remote_partial_verified_mark_is_dropped_when_locked(
    partial: Partial, followed: RemotePartial, tmp_path: Path
) -> None:
    """A process that takes the lock verifies again: a power failure may have taken the bytes."""
    record(partial, 0, 1)
    assert partial.chunks is not None
    partial.chunks.set_verified()
    interrupt(partial)
    next_one = Partial.lock(DIGEST, tmp_path)
    assert next_one is not None
    assert next_one.is_continuation_of(followed)
    assert not followed.refresh().verified
    next_one.release()


async def test_remote_partial_is_compared_without_blocking(partial: Partial, followed: RemotePartial) -> None:
    """A fill continues another process's fill in the event loop."""
    assert partial.is_continuation_of(followed)


def test_remote_partial_discarded_is_not_continued(
    partial: Partial, followed: RemotePartial, tmp_path: Path
) -> None:
    """The names are gone, and the same names are other files."""
    assert not followed.is_unlinked
    partial.discard()
    assert followed.is_unlinked
    other = Partial.lock(DIGEST, tmp_path)
    assert other is not None
    other.allocate(SIZE, CHUNK)
    assert not other.is_continuation_of(followed)
    other.release()
