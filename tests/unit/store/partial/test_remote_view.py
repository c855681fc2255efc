"""The view of a growing file that another process fills."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.partial.demand import Demand
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.partial.remote_view import RemoteView

MIB = 1024 * 1024
SIZE = 8 * MIB
DIGEST = Digest.of(b"x")


@pytest.fixture
def partial(tmp_path: Path) -> Iterator[Partial]:
    """A partial of another process, of which the first MiB is here."""
    partial = Partial.lock(DIGEST, tmp_path)
    assert partial is not None
    partial.allocate(SIZE, MIB).record(0, MIB)
    yield partial
    partial.release()


@pytest.fixture
def remote(partial: Partial, tmp_path: Path) -> Iterator[RemotePartial]:
    remote = RemotePartial.open(DIGEST, tmp_path)
    assert remote is not None
    yield remote
    remote.close()


def view_of(remote: RemotePartial) -> RemoteView:
    return RemoteView(remote, Demand(whole=True))


def test_remote_view_shows_what_has_come(partial: Partial, remote: RemotePartial) -> None:
    view = view_of(remote)
    assert view.file.readable() == MIB
    assert partial.chunks is not None
    partial.chunks.record(MIB, MIB)
    assert view.update(remote.refresh())
    assert view.file.readable() == 2 * MIB


@pytest.mark.parametrize("unread", [True, False])
def test_remote_view_of_a_file_that_was_begun_again(
    partial: Partial, remote: RemotePartial, unread: bool
) -> None:
    """Readers that had bytes of it are cut short; without any the new file is followed."""
    view = view_of(remote)
    view.file.unread = unread
    partial.allocate(SIZE, MIB)
    assert view.update(remote.refresh()) is unread
    assert view.file.rewritten is not unread
    assert view.file.readable() == (0 if unread else MIB)
