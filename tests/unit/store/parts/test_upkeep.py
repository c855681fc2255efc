"""Housekeeping of one folder that several processes use."""

import errno
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.executor import THREADS
from mirror.store.health import Capability
from mirror.store.links.content import StoredManifest
from mirror.store.metadata.index import Link
from mirror.store.store import Store

X, Y = Repository("docker.io", "library/x"), Repository("docker.io", "library/y")
DATA = b'{"schemaVersion":2}'
MANIFEST = StoredManifest(DATA, Digest.of(DATA), "application/x", Link("application/x", len(DATA), 1.0))
LAYER = Digest.of(b"layer")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "cache")
    yield opened
    await opened.close()


async def test_housekeeping_is_done_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others only write last-use times; when the housekeeper is gone, another one takes over."""
    first, second = await Store.open(tmp_path), await Store.open(tmp_path)
    tidied: list[str] = []

    def watched(name: str, store: Store) -> None:
        tidy = store.room.evict

        async def called(keep: Sequence[Digest] = ()) -> None:
            tidied.append(name)
            await tidy(keep)

        monkeypatch.setattr(store.room, "evict", called)

    watched("first", first)
    watched("second", second)
    for store in (first, second, first):
        await store.upkeep.run_housekeeping()
    assert tidied == ["first", "first"]
    await first.close()
    await second.upkeep.run_housekeeping()
    assert tidied == ["first", "first", "second"]
    await second.close()


async def test_recovery_gives_all_threads_writable_connections(store: Store) -> None:
    """A connection opened while the disk was read-only would stay so, and make others so."""
    databases = [store.folder.blobs.database, store.folder.index.database]
    found: list[int] = []

    def make_read_only() -> None:
        for each in databases:
            each.cache._sql("PRAGMA query_only = ON")

    def query() -> None:
        found.extend(each.cache._sql("PRAGMA query_only").fetchone()[0] for each in databases)

    await store.executor.run_in_every_thread(make_read_only)
    store.health.report_fault(Capability.WRITING, OSError(errno.EROFS, "read-only"))
    await store.upkeep.recover()
    await store.executor.run_in_every_thread(query)
    assert store.health.faults() == []
    assert found == [0] * 2 * THREADS
