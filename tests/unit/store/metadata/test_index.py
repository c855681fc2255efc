"""The index: links, tag entries, referrers, repositories."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import (
    LINKS_AT_ONCE,
    NEVER,
    Gone,
    Index,
    Link,
    Provenance,
    ReferrersEntry,
    TagEntry,
)

X, Y = Repository("docker.io", "library/x"), Repository("quay.io", "org/y")
D = Digest.of(b"d")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(tmp_path)
    yield opened
    opened.close()


def test_index_links_belong_to_one_repository(index: Index) -> None:
    """A link of X says nothing about Y."""
    index.add_links(X, {D: Link(size=5)})
    assert (index.link(X, D), index.link(Y, D)) == (Link(None, 5), None)
    index.drop_link(X, D)
    assert index.link(X, D) is None


def test_index_keeps_the_media_type_of_a_manifest(index: Index) -> None:
    """A later link as a blob does not drop the type; a blob's link becomes a manifest's."""
    index.add_links(X, {D: Link("type", 5)})
    index.add_links(X, {D: Link(None, 5)})
    assert index.link(X, D) == Link("type", 5)
    index.add_links(Y, {D: Link(None, 5)})
    index.add_links(Y, {D: Link("type", 5)})
    assert index.link(Y, D) == Link("type", 5)


def test_index_tags_are_put_and_dropped(index: Index) -> None:
    """The last entry counts."""
    tag = Tag("latest")
    assert index.tag(X, tag) is None
    for moment in (1.0, 2.0):
        index.put_tag(X, tag, TagEntry(str(D), "type", 5, moment))
    assert index.tag(X, tag) == TagEntry(str(D), "type", 5, 2.0)
    index.drop_tag(X, tag)
    assert index.tag(X, tag) is None


def test_index_keeps_the_provenance_of_a_tag(index: Index) -> None:
    """A tag that no upstream has confirmed has the date of its import in place of a confirmation."""
    imported = TagEntry(str(D), "type", 5, NEVER, Provenance("imported", "usb.tar", 7.0))
    index.put_tag(X, Tag("t"), imported)
    assert index.tag(X, Tag("t")) == imported
    assert (imported.written, TagEntry(str(D), "type", 5, 3.0).written) == (7.0, 3.0)


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        ('{"digest":"d","media_type":"t","size":5,"confirmed":1.5}', TagEntry("d", "t", 5, 1.5)),
        ('{"digest":"d","media_type":"t","size":5,"confirmed":1}', TagEntry("d", "t", 5, 1.0)),
        (
            '{"digest":"d","media_type":"t","size":5,"confirmed":0.0,"provenance":'
            '{"kind":"imported","origin":"é","date":7.0,"later":1},"later":[]}',
            TagEntry("d", "t", 5, NEVER, Provenance("imported", "é", 7.0)),
        ),
        ('{"digest":"d","media_type":"t","size":"5","confirmed":1}', None),
        ('{"digest":"d"}', None),
        ("\ud800", None),
        ("[]", None),
    ],
)
def test_index_tag_rows_of_other_versions(row: str, entry: TagEntry | None) -> None:
    """Rows of earlier versions parse, and those of later ones as far as they are known here."""
    assert TagEntry.from_json(row) == entry


def test_index_tag_rows_are_read_by_earlier_versions() -> None:
    """A confirmed tag is written as ever: earlier versions take no row with further keys."""
    text = TagEntry("d", "t", 5, 1.5).to_json()
    assert text == '{"digest":"d","media_type":"t","size":5,"confirmed":1.5}'


def test_index_keeps_marks_of_what_is_gone_upstream(index: Index) -> None:
    """A confirmation ends the mark of a link, a name does not; rows without a mark are as ever."""
    gone, later = Gone(3.0, 4.0), Link("type", 5, 6.0, account=True)
    marked = Link("type", 5, 1.0, account=True, gone=gone)
    assert '"gone"' not in later.to_json()
    index.add_links(X, {D: marked})
    assert index.link(X, D) == marked
    index.add_links(X, {D: Link(None, 5)})
    assert index.link(X, D) == marked
    assert [link for _, link, _ in index.links(X, "", 9)] == [marked]
    index.add_links(X, {D: later})
    assert index.link(X, D) == later


def test_index_keeps_long_referrers_lists(index: Index) -> None:
    """A list that does not fit into a row is kept too."""
    manifests = [{"digest": f"sha256:{number:064}", "annotations": {"x": "y" * 100}} for number in range(500)]
    long = json.dumps(manifests)
    index.put_referrers(X, D, ReferrersEntry(long, 1.0))
    assert index.referrers(X, D) == ReferrersEntry(long, 1.0)
    index.put_referrers(X, D, ReferrersEntry("[]", 2.0))
    assert index.referrers(X, D) == ReferrersEntry("[]", 2.0)


def test_index_lists_repositories_in_order(index: Index) -> None:
    """The list goes by prefix, after a name, up to a limit; each repository once."""
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
def test_index_ignores_unreadable_entries(index: Index, tmp_path: Path, value: str) -> None:
    """The upstream is asked again; the entry is never trusted and never an error."""
    index.add_links(X, {D: Link()})
    with sqlite3.connect(tmp_path / "cache.db") as database:
        database.execute("UPDATE Cache SET value = ? WHERE key LIKE 'link:%'", (value,))
    database.close()
    assert index.link(X, D) is None


def test_index_lists_and_drops_links(index: Index) -> None:
    """Referrers lists go with their links; the repository goes with its last link and tag."""
    other = Digest.of(b"other")
    index.add_links(X, {D: Link("type", 5), other: Link()})
    index.put_tag(X, Tag("t"), TagEntry(str(D), "type", 5, 1.0))
    index.put_referrers(X, D, ReferrersEntry("[]", 1.0))
    assert {digest: link for digest, link, _ in index.links(X, "", 10)} == {D: Link("type", 5), other: Link()}
    first, second = sorted((D, other))
    assert [digest for digest, _, _ in index.links(X, str(first), 10)] == [second]
    index.drop(X, ["t"], [D])
    assert (index.tag(X, Tag("t")), index.link(X, D), index.referrers(X, D)) == (None, None, None)
    assert index.repositories("", "", 10) == [str(X)]
    index.drop(X, [], [other])
    assert index.repositories("", "", 10) == []


def test_index_prefix_finds_the_name_itself(index: Index) -> None:
    """A prefix finds the name itself, and longer names."""
    for name in ("1", "1.1", "2"):
        index.put_tag(X, Tag(name), TagEntry(str(D), "type", 5, 1.0))
    assert index.tags(X, "", 10, "1") == ["1", "1.1"]
    assert index.tags(X, "1", 10, "1") == ["1.1"]


def test_index_links_are_written_in_short_transactions(index: Index) -> None:
    """Other processes can write between the links of a long manifest."""
    statements: list[str] = []
    index.database.cache._con.set_trace_callback(statements.append)
    links = {Digest.of(b"%d" % each): Link(size=each) for each in range(2 * LINKS_AT_ONCE + 1)}
    index.add_links(X, links)
    index.database.cache._con.set_trace_callback(None)
    # SQLite traces a statement once for each trigger, too.
    traced = [each for before, each in zip(["", *statements], statements, strict=False) if each != before]
    transactions = "\n".join(traced).split("BEGIN")[1:]
    rows = [each.count("INSERT INTO Cache (") for each in transactions]  # and the repository's
    assert rows == [LINKS_AT_ONCE + 1, LINKS_AT_ONCE + 1, 2]
    assert all("COMMIT" in each for each in transactions)
    assert len(index.links(X, "", len(links) + 1)) == len(links)


@pytest.mark.parametrize(
    "text", ["", "null", '{"manifests":{},"confirmed":1.0}', '{"manifests":[],"confirmed":e}']
)
def test_index_referrers_row_of_another_kind_is_missing(index: Index, text: str) -> None:
    """A row that no mirror has written is asked of the upstream again."""
    index.database.cache.set(f"referrers:{X}@{D}", text)
    assert index.referrers(X, D) is None


def test_index_reads_referrers_of_earlier_versions(index: Index) -> None:
    """A row is the compact JSON of a list and a time."""
    manifests = [{"digest": str(D), "annotations": {"a": 'x","confirmed":2.0}'}}]
    row = json.dumps({"manifests": manifests, "confirmed": 1.5}, separators=(",", ":"))
    index.database.cache.set(f"referrers:{X}@{D}", row)
    found = index.referrers(X, D)
    assert found is not None
    assert (json.loads(found.manifests), found.confirmed) == (manifests, 1.5)
    assert found.to_json() == row


def test_link_of_an_earlier_version_is_of_unknown_standing(index: Index) -> None:
    """A row without a standing may be named or confirmed: its upstream is asked where there are accounts."""
    index._cache.set(f"link:{X}@{D}", '{"media_type":null,"size":5}')
    assert index.link(X, D) == Link(None, 5, confirmed=0.0, account=True)
    assert [link for _, link, _ in index.links(X, "", 10)] == [Link(None, 5, confirmed=0.0, account=True)]


def test_name_replaces_no_confirmation(index: Index) -> None:
    """A manifest that names a digest takes neither the upstream's word nor its size away."""
    confirmed = Link(None, 5, confirmed=10.0, account=True)
    index.add_links(X, {D: confirmed})
    index.add_links(X, {D: Link(None, 6)})
    assert index.link(X, D) == confirmed
    index.add_links(X, {D: Link("type", 6)})
    assert index.link(X, D) == Link("type", 5, confirmed=10.0, account=True)
    index.add_links(X, {D: Link(None, 5, confirmed=20.0)})
    assert index.link(X, D) == Link("type", 5, confirmed=20.0)


def test_index_knows_when_a_manifest_was_first_seen(index: Index) -> None:
    """The first link counts, of the manifest or of an index that names the manifest."""
    child, late = Digest.of(b"child"), Digest.of(b"late")
    index.add_links(X, {D: Link("index", 5, confirmed=100.0), child: Link("manifest", 3)})
    index.add_links(X, {D: Link("index", 5, confirmed=900.0), late: Link("manifest", 3, confirmed=900.0)})
    assert [index.first_seen(X, each, 1000.0) for each in (D, child, late)] == [100, 100, 900]
    assert index.first_seen(Y, D, 1000.0) == 1000
    assert index.first_seen(Y, D, 2000.0) == 1000
    index.drop(X, [], [D])
    assert index.first_seen(X, D, 1000.0) == 100


def test_index_takes_a_link_of_an_earlier_version_for_the_first_sight(index: Index) -> None:
    index.add_links(X, {D: Link("manifest", 5, confirmed=100.0)})
    index.database.cache.delete(f"seen:{X}@{D}")
    assert index.first_seen(X, D, 1000.0) == 100
    index.database.cache.set(f"seen:{X}@{D}", "nonsense")
    assert index.first_seen(X, D, 1000.0) == 1000
