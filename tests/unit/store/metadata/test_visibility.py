from pathlib import Path

import pytest

from mirror.oci.reference import Repository
from mirror.store.metadata.index import Index
from mirror.store.metadata.visibility import KIND, PublicMark, PublicRepositories

APP, OTHER = Repository("quay.io", "org/app"), Repository("quay.io", "org/other")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


def test_public_mark_is_kept_until_it_is_dropped(index: Index) -> None:
    marks = PublicRepositories(index)
    assert marks.mark(APP) is None
    marks.put(APP, PublicMark(12.5, "latest"))
    assert marks.mark(APP) == PublicMark(12.5, "latest")
    assert marks.mark(OTHER) is None
    marks.drop(APP)
    assert marks.mark(APP) is None


@pytest.mark.parametrize("text", ["", "{}", "null", '{"confirmed":"x"}'])
def test_public_mark_that_cannot_be_read_is_none(index: Index, text: str) -> None:
    index.database.cache.set(f"{KIND}{APP}", text)
    assert PublicRepositories(index).mark(APP) is None


def test_public_marks_between_names(index: Index) -> None:
    marks = PublicRepositories(index)
    for name in ("a", "b", "c"):
        marks.put(Repository("quay.io", name), PublicMark(1.0))
    assert set(marks.between("quay.io/a", "quay.io/b")) == {"quay.io/a", "quay.io/b"}
