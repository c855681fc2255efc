"""Rows of the index that its bound removes."""

from pathlib import Path

import pytest

from mirror.oci.reference import Repository
from mirror.store.metadata.index import Index
from mirror.store.metadata.pruned_rows import oldest_about_digests, remove_rows
from mirror.store.metadata.visibility import PublicMark, PublicRepositories

APP, OTHER = Repository("quay.io", "org/app"), Repository("quay.io", "org/other")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


def test_public_marks_are_pruned_with_what_upstreams_can_tell_again(index: Index) -> None:
    PublicRepositories(index).put(APP, PublicMark(1.0))
    rows = oldest_about_digests(index, 0, 1e12)
    assert remove_rows(index, rows) == 1
    assert PublicRepositories(index).mark(APP) is None
