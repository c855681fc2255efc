"""The mirrored upstreams as an origin; `tests/unit/cache/test_cache.py` has what they answer."""

from pathlib import Path

from mirror.oci.reference import Repository, Tag
from tests.fakes.registry import FakeRegistry
from tests.hosting import APP, hosted_of, office, push_image


async def test_mirrored_repository_of_a_hosted_name_is_asked_upstream(
    fake: FakeRegistry, tmp_path: Path
) -> None:
    """`office/app` of Docker Hub is another repository than `app` of the registry `office`."""
    image = fake.add_image("office/app", "latest", [b"layer"])
    async with office(tmp_path / "cache", fake.url) as mirror:
        pushed = await push_image(hosted_of(mirror), APP, "latest")
        app = Repository("docker.io", "office/app")
        hub = await mirror.service.cache.origin(app).get_manifest(app, Tag("latest"))
        own = await mirror.service.cache.origin(APP).get_manifest(APP, Tag("latest"))
        assert (hub.digest, own.digest) == (image.manifest, pushed)
