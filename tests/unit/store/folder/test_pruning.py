"""The bound of the index."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.folder import pruning
from mirror.store.folder.pruning import IN_USE, PAUSE, IndexPruner, index_limit
from mirror.store.metadata.index import Link, ReferrersEntry, TagEntry
from tests.fakes.cached import X, open_folder, put_image

MADE_UP = Repository("u.test", "made/up")


class Clock:
    """Seconds since the epoch, long after all rows were written."""

    now = 4e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    folder = open_folder(tmp_path)
    yield folder
    folder.close()


def flood(folder: CacheDirectory, count: int) -> list[Digest]:
    """Put links and a long list of referrers, all about content that is not here."""
    digests = [Digest.of(b"made up %d" % each) for each in range(count)]
    folder.index.add_links(MADE_UP, {each: Link(size=7) for each in digests})
    folder.index.put_referrers(MADE_UP, digests[0], ReferrersEntry(f'["{"x" * 100_000}"]', 1.0))
    return digests


def links(folder: CacheDirectory) -> int:
    return len(folder.index.links(MADE_UP, "", 10_000))


def test_index_above_its_bound_loses_what_is_not_here(
    folder: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links and referrers of content that is not here go; what is here keeps its own, and tags stay."""
    root, *blobs = put_image(folder, X, "t", [b"layer"])
    digests = flood(folder, 1500)
    folder.index.put_tag(MADE_UP, Tag("t"), TagEntry(str(digests[0]), "a/b", 7, 1.0))
    before = folder.index.database.size()
    monkeypatch.setattr(pruning, "BASE_BYTES", 0)
    assert IndexPruner(folder.index, folder.blobs, Clock()).run() > 1000
    assert folder.index.database.size() < before - 500_000
    assert folder.index.referrers(MADE_UP, digests[0]) is None
    assert folder.index.tag(MADE_UP, Tag("t")) is not None
    assert all(folder.index.link(X, each) is not None for each in (root, *blobs))


def test_index_within_its_bound_stays(folder: CacheDirectory) -> None:
    """Links to what is not here save requests as long as there is room for them."""
    flood(folder, 100)
    assert folder.index.database.size() < index_limit(folder.blobs)
    assert IndexPruner(folder.index, folder.blobs, Clock()).run() == 0
    assert links(folder) == 100


def test_index_keeps_what_a_client_may_ask_for_now(
    folder: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the last minutes stay: a client that got the manifest asks for its blobs."""
    flood(folder, 100)
    ((_, _, written),) = folder.index.links(MADE_UP, "", 1)
    clock = Clock()
    clock.now = written + IN_USE - 1
    monkeypatch.setattr(pruning, "BASE_BYTES", 0)
    pruner = IndexPruner(folder.index, folder.blobs, clock)
    assert pruner.run() == 0
    # All rows were seen: the next look at them is after a pause.
    clock.now += PAUSE - 1
    assert pruner.run() == 0
    clock.now += 1
    assert pruner.run() > 0


def test_index_is_pruned_in_parts(folder: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run looks at a limited number of rows, and the next one goes on behind them."""
    flood(folder, 1500)
    monkeypatch.setattr(pruning, "BASE_BYTES", 0)
    monkeypatch.setattr(pruning, "BATCHES", 1)
    pruner = IndexPruner(folder.index, folder.blobs, Clock())
    left = []
    for _ in range(4):
        pruner.run()
        left.append(links(folder))
    assert left[0] >= 1000 > left[1] >= 500 > left[2] > left[3] - 1
