"""The books: links, tag entries, referrers, repositories."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import Index, Link, ReferrersEntry, TagEntry

X, Y = Repository("docker.io", "library/x"), Repository("quay.io", "org/y")
D = Digest.of(b"d")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(tmp_path)
    yield opened
    opened.close()


def test_links_are_of_one_repository(index: Index) -> None:
    """What X contains says nothing about Y."""
    index.add_links(X, {D: Link(size=5)})
    assert (index.link(X, D), index.link(Y, D)) == (Link(None, 5), None)
    index.drop_link(X, D)
    assert index.link(X, D) is None


def test_a_manifest_stays_a_manifest(index: Index) -> None:
    """Seen once as a blob afterwards, its type is not forgotten; a blob becomes a manifest."""
    index.add_links(X, {D: Link("type", 5)})
    index.add_links(X, {D: Link(None, 5)})
    assert index.link(X, D) == Link("type", 5)
    index.add_links(Y, {D: Link(None, 5)})
    index.add_links(Y, {D: Link("type", 5)})
    assert index.link(Y, D) == Link("type", 5)


def test_tags_come_and_go(index: Index) -> None:
    """The last entry is the one."""
    tag = Tag("latest")
    assert index.tag(X, tag) is None
    for moment in (1.0, 2.0):
        index.put_tag(X, tag, TagEntry(str(D), "type", 5, moment))
    assert index.tag(X, tag) == TagEntry(str(D), "type", 5, 2.0)
    index.drop_tag(X, tag)
    assert index.tag(X, tag) is None


def test_long_lists_of_referrers_are_kept_too(index: Index) -> None:
    """Beyond what fits into a row as well."""
    manifests = [{"digest": f"sha256:{number:064}", "annotations": {"x": "y" * 100}} for number in range(500)]
    index.put_referrers(X, D, ReferrersEntry(manifests, 1.0))
    assert index.referrers(X, D) == ReferrersEntry(manifests, 1.0)
    index.put_referrers(X, D, ReferrersEntry([], 2.0))
    assert index.referrers(X, D) == ReferrersEntry([], 2.0)


def test_repositories_are_listed_in_order(index: Index) -> None:
    """By prefix, after a name, up to a limit; each once."""
    for path in ("c", "a", "b", "a"):
        index.add_links(Repository("docker.io", path), {D: Link()})
    index.add_links(Y, {D: Link()})
    names = ["docker.io/a", "docker.io/b", "docker.io/c", "quay.io/org/y"]
    assert index.repositories("", "", 10) == names
    assert index.repositories("docker.io/", "", 10) == names[:3]
    assert index.repositories("docker.io/", "docker.io/a", 1) == names[1:2]
    assert index.repositories("", "docker.io/b", 10) == names[2:]
    assert index.repositories("ghcr.io/", "", 10) == []


@pytest.mark.parametrize("value", ["not json", "[]", '{"unknown":1}', '{"media_type":1}x'])
def test_an_entry_that_cannot_be_read_is_no_entry(index: Index, tmp_path: Path, value: str) -> None:
    """Asked of the upstream again, never trusted and never an error."""
    index.add_links(X, {D: Link()})
    with sqlite3.connect(tmp_path / "cache.db") as database:
        database.execute("UPDATE Cache SET value = ? WHERE key LIKE 'link:%'", (value,))
    database.close()
    assert index.link(X, D) is None


def test_links_are_listed_and_dropped(index: Index) -> None:
    """With what refers to them; the repository goes with its last link and tag."""
    other = Digest.of(b"other")
    index.add_links(X, {D: Link("type", 5), other: Link()})
    index.put_tag(X, Tag("t"), TagEntry(str(D), "type", 5, 1.0))
    index.put_referrers(X, D, ReferrersEntry([], 1.0))
    assert {digest: link for digest, link, _ in index.links(X, "", 10)} == {D: Link("type", 5), other: Link()}
    first, second = sorted((D, other))
    assert [digest for digest, _, _ in index.links(X, str(first), 10)] == [second]
    index.drop(X, ["t"], [D])
    assert (index.tag(X, Tag("t")), index.link(X, D), index.referrers(X, D)) == (None, None, None)
    assert index.repositories("", "", 10) == [str(X)]
    index.drop(X, [], [other])
    assert index.repositories("", "", 10) == []


def test_names_may_begin_like_others(index: Index) -> None:
    """A prefix finds the name itself, and those that go on."""
    for name in ("1", "1.1", "2"):
        index.put_tag(X, Tag(name), TagEntry(str(D), "type", 5, 1.0))
    assert index.tags(X, "", 10, "1") == ["1", "1.1"]
    assert index.tags(X, "1", 10, "1") == ["1.1"]
