"""Digests of older archives."""

from pathlib import Path

import pytest

from mirror.bundle.archives.since import digests_in
from mirror.bundle.errors import Damaged
from mirror.bundle.parts import split
from mirror.bundle.plan import make_plan
from tests.fakes.bundles import Shelf, two_platforms


def test_since_has_every_content_of_a_bundle(tmp_path: Path) -> None:
    """Manifests too."""
    shelf = Shelf()
    path = tmp_path / "old.tar"
    path.write_bytes(shelf.written(make_plan(two_platforms(shelf))))
    assert set(digests_in([path])) == shelf.blobs.keys() | shelf.manifests.keys()


def test_since_has_a_split_blob_with_all_parts_only(tmp_path: Path) -> None:
    """One part of several says nothing about the blob."""
    shelf = Shelf()
    paths = []
    for number, plan in enumerate(split(two_platforms(shelf), 100_000)):
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(shelf.written(plan))
    assert set(digests_in(paths)) == shelf.blobs.keys() | shelf.manifests.keys()
    large = max(shelf.blobs, key=lambda digest: len(shelf.blobs[digest]))
    for left_out in paths:
        assert (
            large not in set(digests_in([path for path in paths if path != left_out]))
            or left_out == paths[-1]
        )


def test_since_of_an_archive_that_is_cut_short_fails(tmp_path: Path) -> None:
    """The receiver may not have what is missing."""
    shelf = Shelf()
    path = tmp_path / "old.tar"
    path.write_bytes(shelf.written(make_plan(two_platforms(shelf)))[:-100_000])
    with pytest.raises(Damaged, match="cut short"):
        list(digests_in([path]))
