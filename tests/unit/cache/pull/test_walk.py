"""Walk over an image: tag, platforms, manifests, referrers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.cache.pull.budget import PullBudget
from mirror.cache.pull.walk import ImageContents, ImageWalk, Wanted
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.upstream.errors import UpstreamError
from tests.fakes.content import descriptor, image_index, image_manifest, some_layers
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import Running, mirror_of

X = Repository("docker.io", "library/x")
EVERYTHING = Wanted()


@pytest.fixture
async def mirror(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(hub, tmp_path / "cache", tags={"fresh": 0, "missing": 0}) as running:
        yield running


async def walked(mirror: Running, wanted: Wanted = EVERYTHING) -> ImageContents:
    walk = ImageWalk(mirror.service.cache.pulls._puller._caches, X, wanted)
    await walk.run(Tag("t"))
    return walk.contents


def manifests_asked(hub: FakeRegistry, method: str = "GET") -> int:
    return hub.requests(method, "/manifests/")


async def test_walk_follows_an_index_to_the_wanted_platform(hub: FakeRegistry, mirror: Running) -> None:
    """Manifests of other platforms are not fetched."""
    images = [hub.add_image("library/x", None, [layer]) for layer in some_layers(3)]
    index = image_index([image.manifest_data for image in images])
    root = hub.add_manifest("library/x", index, OCI_INDEX, "t")
    found = await walked(mirror, Wanted(("linux/arch1",)))
    assert found.root == root
    assert list(found.manifests) == [root, images[1].manifest]
    assert list(found.blobs) == list(images[1].blobs)
    assert found.fetched == set(found.manifests)
    assert not found.missing
    assert manifests_asked(hub) == 2
    everything = await walked(mirror)
    assert set(everything.manifests) == {root, *(image.manifest for image in images)}
    assert everything.fetched == {images[0].manifest, images[2].manifest}


async def test_walk_names_a_platform_that_the_image_lacks(hub: FakeRegistry, mirror: Running) -> None:
    image = hub.add_image("library/x", None, [])
    hub.add_manifest("library/x", image_index([image.manifest_data]), OCI_INDEX, "t")
    found = await walked(mirror, Wanted(("linux/s390x", "linux/arch0")))
    assert found.missing == {"linux/s390x": "the image has no such platform, but linux/arch0"}
    assert list(found.blobs) == list(image.blobs)


async def test_walk_notes_a_manifest_that_fails(hub: FakeRegistry, mirror: Running) -> None:
    """The other platforms are followed nevertheless."""
    images = [hub.add_image("library/x", None, [layer]) for layer in some_layers(2)]
    hub.add_manifest("library/x", image_index([each.manifest_data for each in images]), OCI_INDEX, "t")
    hub.fault(Fault(status=500), match=images[0].manifest, times=9)
    found = await walked(mirror)
    assert list(found.missing) == [str(images[0].manifest)]
    assert list(found.blobs) == list(images[1].blobs)


async def test_walk_raises_for_an_image_that_does_not_exist(hub: FakeRegistry, mirror: Running) -> None:
    with pytest.raises(UpstreamError, match="NAME_UNKNOWN"):
        await walked(mirror)


async def test_walk_says_that_a_tag_is_not_confirmed(hub: FakeRegistry, mirror: Running) -> None:
    """The last known image is walked over while the upstream does not answer."""
    image = hub.add_image("library/x", "t", some_layers(1))
    await walked(mirror)
    hub.fault(Fault(status=500), times=99)
    found = await walked(mirror)
    assert found.root == image.manifest
    assert "the tag t is not confirmed" in found.unconfirmed
    assert not found.fetched


async def test_walk_notes_a_tag_that_has_moved(hub: FakeRegistry, mirror: Running) -> None:
    """A HEAD tells where the tag points, and one GET brings the manifest, where pulls are counted."""
    hub.limit = RateLimit(100)
    hub.add_image("library/x", "t", some_layers(1))
    await walked(mirror)
    new = hub.add_image("library/x", "t", some_layers(2))
    used = hub.limit.used[""]
    assert (await walked(mirror)).root == new.manifest
    assert hub.limit.used[""] == used + 1
    entry = await mirror.service._store.metadata.tag(X, Tag("t"))
    assert entry is not None
    assert entry.digest == str(new.manifest)


async def test_walk_leaves_pulls(hub: FakeRegistry, mirror: Running) -> None:
    """An unchanged tag costs no pull; a new one waits."""
    hub.limit = RateLimit(10)
    hub.add_image("library/x", "t", some_layers(1))
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        assert hub.limit is not None
        hub.limit.used.clear()

    budget = PullBudget(mirror.service._upstreams, 8, sleep=sleep)
    await walked(mirror, Wanted(budget=budget))
    hub.limit.used[""] = 9
    await walked(mirror, Wanted(budget=budget))
    assert waited == []
    new = hub.add_image("library/x", "t", some_layers(2))
    assert (await walked(mirror, Wanted(budget=budget))).root == new.manifest
    assert len(waited) == 1


def sign(hub: FakeRegistry, subject: Digest, name: str, tag: str | None = None) -> Digest:
    """Add a signature with a blob of its own, as a referrer or under a tag."""
    blob = f"signature {name}".encode()
    hub.add_blob("library/x", b"{}")
    hub.add_blob("library/x", blob)
    about = descriptor(OCI_MANIFEST, b"", str(subject))
    data = image_manifest(b"{}", [blob], about if tag is None else None)
    return hub.add_manifest("library/x", data, OCI_MANIFEST, tag)


async def test_walk_finds_referrers_by_the_api_and_by_tags(hub: FakeRegistry, mirror: Running) -> None:
    """Signatures of signatures too; without `referrers`, nothing is asked about them."""
    image = hub.add_image("library/x", "t", some_layers(1))
    by_api = sign(hub, image.manifest, "api")
    of_signature = sign(hub, by_api, "of the signature")
    name = f"sha256-{image.manifest.encoded}"
    by_tag = [sign(hub, image.manifest, kind, f"{name}.{kind}") for kind in ("sig", "att", "sbom")]
    assert list((await walked(mirror)).manifests) == [image.manifest]
    assert hub.requests(match="referrers") == 0
    found = await walked(mirror, Wanted(referrers=True))
    assert set(found.manifests) == {image.manifest, by_api, of_signature, *by_tag}
    assert len(found.blobs) == len(image.blobs) + 1 + 5
    assert not found.missing


async def test_walk_finds_referrers_by_the_tag_schema(hub: FakeRegistry, mirror: Running) -> None:
    """An upstream without the API has an index under a tag."""
    hub.referrers_api = False
    image = hub.add_image("library/x", "t", some_layers(1))
    signature = sign(hub, image.manifest, "x")
    data = hub.repository("library/x").manifests[str(signature)].data
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_MANIFEST, data)]}
    hub.add_manifest("library/x", json.dumps(index).encode(), OCI_INDEX, f"sha256-{image.manifest.encoded}")
    found = await walked(mirror, Wanted(referrers=True))
    assert signature in found.manifests
    assert not found.missing


async def test_walk_notes_referrers_that_cannot_be_listed(hub: FakeRegistry, mirror: Running) -> None:
    image = hub.add_image("library/x", "t", some_layers(1))
    hub.fault(Fault(status=500), match="/referrers/", times=9)
    found = await walked(mirror, Wanted(referrers=True))
    assert list(found.missing) == [f"referrers of {image.manifest}"]
    assert list(found.blobs) == list(image.blobs)
