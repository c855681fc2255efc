"""Reference counts of blobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.metadata.index import Index, Link
from mirror.store.metadata.refcount import COUNT, BlobUse, ReferenceCounts

A, B, C = (Digest.of(each) for each in (b"a", b"b", b"c"))
FIRST, SECOND, OTHER = (
    Repository(*each) for each in (("docker.io", "x/1"), ("docker.io", "x/2"), ("q.io:1", "y"))
)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(tmp_path)
    yield opened
    opened.close()


def test_refcount_counts_links_by_digest(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts come by upstream, with the first repository there, whatever the batch size."""
    monkeypatch.setattr("mirror.store.metadata.refcount.ROWS", 1)
    index.add_links(SECOND, {A: Link(), B: Link()})
    index.add_links(FIRST, {A: Link()})
    index.add_links(OTHER, {A: Link()})
    usage = ReferenceCounts(index)
    found = usage.uses([str(A), str(B), str(C)])
    assert sorted(found[str(A)], key=str) == [
        BlobUse("docker.io", 2, "docker.io/x/1"),
        BlobUse("q.io:1", 1, "q.io:1/y"),
    ]
    assert found[str(B)] == [BlobUse("docker.io", 1, "docker.io/x/2")]
    assert usage.links([str(A), str(B), str(C)]) == {str(A): 3, str(B): 1}


def test_refcount_follows_the_index(index: Index) -> None:
    """Each count is of the present state."""
    assert ReferenceCounts(index).links([str(A)]) == {}
    index.add_links(FIRST, {A: Link()})
    assert ReferenceCounts(index).links([str(A)]) == {str(A): 1}


def test_refcount_uses_an_index(index: Index) -> None:
    """An SQL index of ours finds the links: with a million links it takes no longer."""
    plan = index.database.query(f"EXPLAIN QUERY PLAN {COUNT % '?'}", [str(A)])
    assert plan[0][-1] == "SEARCH Cache USING INDEX Cache_linked (<expr>=?)"


def test_refcount_memoises_base_images(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that changes nothing memoises; other counts see changes."""
    monkeypatch.setattr("mirror.store.metadata.refcount.MEMOISED_ABOVE", 1)
    for repository in (FIRST, SECOND):
        index.add_links(repository, {A: Link()})
    once, live = ReferenceCounts(index, memoise=True), ReferenceCounts(index)
    assert [each.links([str(A)]) for each in (once, live)] == [{str(A): 2}, {str(A): 2}]
    index.add_links(OTHER, {A: Link(), B: Link()})
    assert once.links([str(A), str(B)]) == {str(A): 2, str(B): 1}
    assert live.links([str(A), str(B)]) == {str(A): 3, str(B): 1}
