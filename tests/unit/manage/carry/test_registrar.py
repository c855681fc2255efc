"""Index entries of imported images."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.bundle.model import ContentDescriptor
from mirror.manage.carry.names import ImageName
from mirror.manage.carry.registrar import Manifests, Registrar
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.index import ReferrersEntry, TagEntry
from tests.fakes.bundles import Shelf
from tests.fakes.cached import X, open_folder

NAME, NOW = ImageName(X, "1"), 2000.7


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    opened.close()


def registrar(folder: CacheDirectory, *, forced: bool = False) -> Registrar:
    return Registrar(folder, "lab.tar", (), forced, NOW)


def test_links_of_an_index(folder: CacheDirectory) -> None:
    """Children that came are confirmed; a platform that was left out, and what is not proven, is named."""
    shelf = Shelf()
    here, absent = shelf.image([b"a", b"b"]), shelf.image([b"c"], "arm64")
    index = shelf.index({"amd64": here, "arm64": absent})
    data = {digest: each for digest, each in shelf.manifests.items() if digest != absent.digest}
    registrar(folder).link(X, Manifests(data), data, {Digest.of(b"b")})
    confirmed = {
        each: link.confirmed
        for each in (index.digest, here.digest, absent.digest, Digest.of(b"a"), Digest.of(b"b"))
        if (link := folder.reader.link(X, each)) is not None
    }
    assert list(confirmed.values()) == [2000.0, 2000.0, None, 2000.0, None]
    assert folder.reader.link(X, Digest.of(b"c")) is None


def test_referrers_are_added_to_the_list(folder: CacheDirectory) -> None:
    """A descriptor is as a registry lists it, once; those that were listed stay, with their time."""
    shelf = Shelf()
    root = shelf.image([b"a"])
    signature = shelf.referrer(root, b"signed")
    manifests = Manifests(shelf.manifests)
    for _ in range(2):
        registrar(folder).link(X, manifests, shelf.manifests, ())
    entry = folder.index.referrers(X, root.digest)
    assert entry is not None
    (listed,) = json.loads(entry.manifests)
    assert (listed["digest"], listed["artifactType"]) == (
        str(signature.digest),
        "application/vnd.test.signature",
    )
    assert entry.confirmed == 0.0
    folder.writer.put_referrers(X, root.digest, ReferrersEntry('[{"digest":"other"}]', 5.0))
    registrar(folder).link(X, manifests, shelf.manifests, ())
    merged = folder.index.referrers(X, root.digest)
    assert merged is not None
    assert [each["digest"] for each in json.loads(merged.manifests)] == ["other", str(signature.digest)]
    assert merged.confirmed == 5.0


@pytest.mark.parametrize(
    ("known", "confirmed", "forced", "replaced"),
    [(None, 0, False, True), (1000, 999, False, False), (1000, 1000, False, True), (1000, 0, True, True)],
)
def test_tags_are_never_made_older(
    folder: CacheDirectory, known: int | None, confirmed: int, forced: bool, replaced: bool
) -> None:
    """The later confirmation counts, unless the operator forces it."""
    here, there = Digest.of(b"here"), Digest.of(b"there")
    if known is not None:
        folder.writer.put_tag(X, Tag("1"), TagEntry(str(here), "application/x", 1, float(known)))
    root = ContentDescriptor("application/x", there, 2)
    assert registrar(folder, forced=forced).put_tag(NAME, root, confirmed) == replaced
    entry = folder.index.tag(X, Tag("1"))
    assert entry is not None
    assert (entry.digest == str(there)) == replaced


def test_tags_of_the_future_are_of_now(folder: CacheDirectory) -> None:
    """A tag that was confirmed in a hundred years gives way to the next archive all the same."""
    future, next_one = Digest.of(b"future"), Digest.of(b"next")
    assert registrar(folder).put_tag(
        NAME, ContentDescriptor("application/x", future, 2), int(NOW) + 3_000_000_000
    )
    assert registrar(folder).put_tag(NAME, ContentDescriptor("application/x", next_one, 2), int(NOW))
    entry = folder.index.tag(X, Tag("1"))
    assert entry is not None
    assert entry.digest == str(next_one)


def test_tags_that_are_the_same_keep_their_confirmation(folder: CacheDirectory) -> None:
    """An upstream's own word is better than the bundle's; the later of two bundles counts."""
    root = ContentDescriptor("application/x", Digest.of(b"x"), 2)
    entry = TagEntry(str(root.digest), "application/x", 2, 1000.0)
    folder.writer.put_tag(X, Tag("1"), entry)
    assert registrar(folder).put_tag(NAME, root, 1500)
    assert folder.index.tag(X, Tag("1")) == entry
    folder.writer.drop_tag(X, Tag("1"))
    for confirmed, expected in ((100, 100), (300, 300), (200, 300)):
        assert registrar(folder).put_tag(NAME, root, confirmed)
        known = folder.index.tag(X, Tag("1"))
        assert known is not None
        assert known.provenance is not None
        assert known.provenance.confirmed == expected
