"""Facts about images: their age, and what is missing of them."""

from pathlib import Path

from mirror.oci.reference import Repository
from tests.fakes.content import some_layers
from tests.fakes.registry import FakeRegistry
from tests.hosting import APP, hosted_of, office, push_image
from tests.running import mirror_of
from tests.wire import get

X = Repository("docker.io", "library/x")


async def test_image_exists_since_it_was_first_seen(hub: FakeRegistry, tmp_path: Path) -> None:
    """The author's date does not count where nobody asks for it; layers are missing until they come."""
    image = hub.add_image("library/x", "t", some_layers(1))
    async with mirror_of(hub, tmp_path, fill={"prefetch": 0}) as mirror:
        await get(mirror.address, "/v2/library/x/manifests/t")
        facts = mirror.service.cache.images
        before = facts.clock()
        birth = await facts.birth(X, image.manifest)
        assert (birth.by_author, birth.since <= before <= birth.now) == (False, True)
        assert await facts.missing_blobs(X, image.manifest) > 0


async def test_hosted_image_is_complete_and_as_old_as_its_push(tmp_path: Path) -> None:
    async with office(tmp_path / "cache") as mirror:
        digest, facts = await push_image(hosted_of(mirror), APP, "1"), mirror.service.cache.images
        assert not (await facts.birth(APP, digest, by_author=True)).by_author
        assert await facts.missing_blobs(APP, digest) == 0
        answer = await mirror.service.cache.origin(APP).get_manifest(APP, digest)
        assert await facts.read_manifest(answer) is not None
