"""The cache: each kind of content through its own part, by name and by digest."""

from mirror.cache.readers import SmallBlob
from mirror.cache.results import Outcome
from mirror.oci.reference import Repository, Tag
from tests.fakes.registry import FakeRegistry
from tests.running import Running

X = Repository("docker.io", "library/x")


async def test_cache_answers_for_every_kind_of_content(hub: FakeRegistry, mirror: Running) -> None:
    """One object answers for manifests by tag and digest, blobs, tags, referrers and the catalog."""
    image = hub.add_image("library/x", "t", [b"a"])
    cache = mirror.service.cache
    by_tag = await cache.origin(X).get_manifest(X, Tag("t"))
    by_digest = await cache.origin(X).get_manifest(X, image.manifest)
    assert by_tag.data == by_digest.data == image.manifest_data
    assert (by_tag.outcome, by_digest.outcome) == (Outcome.MISS, Outcome.HIT)
    assert (await cache.origin(X).head_manifest(X, Tag("t"))).digest == image.manifest
    assert (await cache.origin(X).head_manifest(X, image.manifest)).size == len(image.manifest_data)
    assert (await cache.origin(X).head_blob(X, image.layers[0])).size == 1
    blob = await cache.origin(X).get_blob(X, image.layers[0])
    assert blob.content == SmallBlob(b"a")
    assert b'"t"' in (await cache.origin(X).tags(X, "")).data
    assert not (await cache.origin(X).referrers(X, image.manifest, ())).filtered
    assert (await cache.catalog(None, "", 10)).repositories == ["docker.io/library/x"]
