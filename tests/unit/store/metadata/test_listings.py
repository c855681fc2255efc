"""Lists of rows of many repositories."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import (
    Gone,
    Index,
    TagEntry,
)
from mirror.store.metadata.listings import count_tags, gone_tags, matching_rows, rows_between

X, Y = Repository("docker.io", "library/x"), Repository("quay.io", "org/y")
D = Digest.of(b"d")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(tmp_path)
    yield opened
    opened.close()


def test_index_lists_tags_that_are_gone_upstream(index: Index) -> None:
    """The list is in order, and has those of this repository only."""
    entry = TagEntry(str(D), "type", 5, 1.0)
    kept = TagEntry(str(D), "type", 5, 1.0, gone=Gone(3.0, 4.0))
    for name, each in (("b", kept), ("a", kept), ("c", entry)):
        index.put_tag(X, Tag(name), each)
    index.put_tag(Y, Tag("d"), kept)
    index.put_tag(X, Tag("e", ("odd/type",)), kept)
    assert gone_tags(index, X) == [("a", kept), ("b", kept)]


def test_rows_are_counted_and_found_by_their_words(index: Index) -> None:
    """Tags count for their own repository; a word with a mark of LIKE is taken literally."""
    entry = TagEntry(str(D), "type", 5, 1.0)
    for name in ("v1", "v1_a", "v2"):
        index.put_tag(X, Tag(name), entry)
    index.put_tag(Y, Tag("v1"), entry)
    assert count_tags(index, [str(X), str(Y), "docker.io/none"]) == {
        str(X): 3,
        str(Y): 1,
        "docker.io/none": 0,
    }
    found = matching_rows(index, f"tag:{X}:", ["_a"], "", 9)
    assert [key for key, _ in found] == [f"tag:{X}:v1_a"]
    assert len(matching_rows(index, "tag:", ["v1"], "", 2)) == 2
    assert {key for key, _ in rows_between(index, [(f"tag:{Y}:", f"tag:{Y};")])} == {f"tag:{Y}:v1"}
