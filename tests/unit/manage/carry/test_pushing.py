"""Imports into hosted registries."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.manage.carry.imports import ImportOptions
from mirror.manage.carry.names import Namer
from mirror.manage.verification import Verification
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.util.rate_limiter import RateLimiter
from tests.fakes.bundles import Shelf, random_bytes
from tests.unit.bundle.archives.test_distribution import Storage
from tests.unit.manage.carry.carrying import NOW, imported, states

APP = Repository("office", "team/app")
LARGE = random_bytes(700_000, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    """A cache that may have less than the storage folder has."""
    settings = CacheSettings(dir=tmp_path / "cache", min_free=Amount(), max_size=Amount(100_000))
    opened = CacheDirectory(tmp_path / "cache", settings)
    yield opened
    assert opened.blobs.check() == []
    opened.close()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def storage(tmp_path: Path, shelf: Shelf) -> Path:
    """The storage folder of a registry: an image of two platforms, signed."""
    made = Storage(tmp_path / "registry")
    one, two = shelf.image([LARGE, b"a"]), shelf.image([LARGE, b"b"], "arm64")
    index = shelf.index({"amd64": one, "arm64": two})
    shelf.referrer(index, b"signed")
    for data in shelf.blobs.values():
        made.layer("team/app", data)
    for digest, each in shelf.manifests.items():
        made.manifest("team/app", each.data, "1.0" if digest == index.digest else "")
    return tmp_path / "registry"


def to_office(*, forced: bool = False) -> ImportOptions:
    names = {"docker.io": "docker.io", "office": "office"}
    return ImportOptions(Namer(names, "office"), (), NOW, forced, hosted=("office",))


def test_registry_moves_into_a_hosted_one(folder: CacheDirectory, storage: Path, shelf: Shelf) -> None:
    """All is retained, whatever the quota of the cache; tags, platforms and signatures are there."""
    results = imported(folder, storage, to_office())
    assert states(results)["office/team/app:1.0"] == "imported"
    index = HostedIndex(folder)
    entry = folder.index.tag(APP, Tag("1.0"))
    assert entry is not None
    (signature,) = json.loads(index.queries.referrers(APP, Digest.parse(entry.digest), "", ())[0])
    assert signature["artifactType"] == "application/vnd.test.signature"
    size, count = folder.blobs.retention.totals()
    assert (size, count) == folder.blobs.stats()
    assert index.queries.held("office") == size > 100_000
    assert all(folder.index.link(APP, digest) is not None for digest in shelf.manifests)
    run = Verification(folder, RateLimiter(0), quick=True, repair=False)
    list(run.steps())
    assert run.findings == []
    assert set(states(imported(folder, storage, to_office())).values()) == {"present"}


def test_import_leaves_tags_that_were_pushed(folder: CacheDirectory, storage: Path, shelf: Shelf) -> None:
    """The tag here may be newer; the operator can force it."""
    imported(folder, storage, to_office())
    other = next(digest for digest in shelf.manifests if folder.index.link(APP, digest))
    entry = folder.index.tag(APP, Tag("1.0"))
    assert entry is not None
    changed = type(entry)(str(other), entry.media_type, entry.size, NOW)
    assert str(other) != entry.digest
    folder.index.put_tag(APP, Tag("1.0"), changed)
    assert states(imported(folder, storage, to_office()))["office/team/app:1.0"] == "older"
    assert folder.index.tag(APP, Tag("1.0")) == changed
    imported(folder, storage, to_office(forced=True))
    forced = folder.index.tag(APP, Tag("1.0"))
    assert forced is not None
    assert forced.digest == entry.digest


def test_import_into_the_mirror_retains_nothing(tmp_path: Path, storage: Path) -> None:
    """The hosted registries of the configuration change nothing for images of others."""
    folder = CacheDirectory(tmp_path / "other")
    names = {"docker.io": "docker.io", "office": "office"}
    run = ImportOptions(Namer(names, "docker.io"), (), NOW, hosted=("office",))
    imported(folder, storage, run)
    assert folder.blobs.retention.totals() == (0, 0)
    assert HostedIndex(folder).names.all() == {"office"}
    folder.close()
