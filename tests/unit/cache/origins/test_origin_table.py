"""The origin of each repository."""

from pathlib import Path

from mirror.oci.reference import Repository
from tests.hosting import APP, hosted_of, office


async def test_each_repository_has_one_origin(tmp_path: Path) -> None:
    """A hosted name never asks an upstream, and one that only looks like it does."""
    async with office(tmp_path / "cache") as mirror:
        origins = mirror.service.cache.origins
        other = Repository("docker.io", "office/app")
        assert (origins.is_hosted(APP), origins.is_hosted(other)) == (True, False)
        assert origins.of(APP) is hosted_of(mirror).content
        assert origins.of(other) is not origins.of(APP)
