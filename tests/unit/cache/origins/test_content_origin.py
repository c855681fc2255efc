"""Origins of content."""

from pathlib import Path

from mirror.cache.origins.content_origin import ContentOrigin
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from tests.hosting import APP, hosted_of, office


async def test_each_repository_has_one_origin(tmp_path: Path) -> None:
    """A hosted name never asks an upstream, and has none to wait for."""
    async with office(tmp_path / "cache") as mirror:
        cache = mirror.service.cache
        assert cache.is_hosted(APP)
        assert not cache.is_hosted(Repository("docker.io", "office/app"))
        assert cache.time_limit(APP, 5.0) == 5.0
        assert not cache.report_timeout(APP, 5.0)
        origin: ContentOrigin = hosted_of(mirror).content
        assert not (await origin.referrers(APP, Digest.of(b"x"), ())).filtered
