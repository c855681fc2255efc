"""Names of hosted registries in the index."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.metadata.hosted_names import HostedNames, NameClash
from mirror.store.metadata.index import Index, Link


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "books")
    yield index
    index.close()


def test_hosted_names_outlive_the_configuration(index: Index) -> None:
    names = HostedNames(index)
    names.register(["office", "lab"], ["docker.io"])
    names.register(["office"], ["docker.io"])
    assert names.all() == {"office", "lab"}
    assert names.has(Repository("lab", "x"))
    assert not names.has(Repository("docker.io", "x"))


def test_hosted_names_tell_what_hosted_repositories_link(index: Index) -> None:
    names, digests = HostedNames(index), [Digest.of(b"pushed"), Digest.of(b"mirrored")]
    index.add_links(Repository("office", "a"), {digests[0]: Link()})
    index.add_links(Repository("docker.io", "a"), dict.fromkeys(digests, Link()))
    assert not names.linked_among(map(str, digests))
    index.database.cache.add("hosted:office", "")
    assert names.linked_among(map(str, digests)) == {str(digests[0])}


def test_hosted_name_of_an_upstream_with_content_is_refused(index: Index) -> None:
    """Links of an upstream would pass for pushes, and pushes for what an upstream has confirmed."""
    names = HostedNames(index)
    index.add_links(Repository("r.lan", "a"), {Digest.of(b"x"): Link()})
    with pytest.raises(NameClash, match=r"r\.lan was an upstream in this cache folder"):
        names.register(["r.lan"], ["docker.io"])
    names.register(["office"], ["docker.io"])
    with pytest.raises(NameClash, match="office was a hosted registry in this cache folder"):
        names.register([], ["docker.io", "office"])


def test_hosted_name_is_forgotten_without_content_only(index: Index) -> None:
    names = HostedNames(index)
    names.register(["office", "lab"], [])
    index.add_links(Repository("office", "a"), {Digest.of(b"x"): Link()})
    assert not names.forget("office")
    assert names.forget("lab")
    assert names.all() == {"office"}
