"""Queries for the images of a pattern."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata import index as index_module
from mirror.store.metadata.index import Index, Link, TagEntry
from mirror.store.metadata.query import repositories, tags

D = Digest.of(b"d")
NAMES = ("library/alpine", "library/alpine-slim", "library/busybox", "org/alpine")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Open an index that is read two rows at a time."""
    monkeypatch.setattr(index_module, "ROWS", 2)
    monkeypatch.setattr("mirror.store.metadata.query.ROWS", 2)
    opened = Index(tmp_path)
    for name in NAMES:
        repository = Repository("docker.io", name)
        opened.add_links(repository, {D: Link()})
        for tag in ("1", "1.1", "1.2", "2", "latest"):
            opened.put_tag(repository, Tag(tag), TagEntry(str(D), "t", 1, 1.0))
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("alpine", NAMES[:1]),
        ("alpine*", NAMES[:2]),
        ("docker.io/*", NAMES),
        ("*alpine", NAMES[:1]),
        ("docker.io/*/alpine", (NAMES[0], NAMES[3])),
        ("quay.io/*", ()),
        ("*", NAMES),
    ],
)
def test_query_repositories(index: Index, pattern: str, found: tuple[str, ...]) -> None:
    """The repository of a literal name, or all that match; in order."""
    assert [each.path for each in repositories(index, ImagePattern.parse(pattern))] == list(found)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("alpine", ["latest"]),
        ("alpine:1*", ["1", "1.1", "1.2"]),
        ("alpine:*", ["1", "1.1", "1.2", "2", "latest"]),
        ("alpine:*.?", ["1.1", "1.2"]),
        ("alpine:3", []),
        (f"alpine@{D}", []),
    ],
)
def test_query_tags(index: Index, pattern: str, found: list[str]) -> None:
    """The matching tags, with their entries."""
    repository = Repository("docker.io", "library/alpine")
    listed = list(tags(index, repository, ImagePattern.parse(pattern)))
    assert [name for name, _ in listed] == found
    assert all(entry.digest == str(D) for _, entry in listed)
