"""Origins of content."""

from pathlib import Path

from mirror.cache.origins.content_origin import ContentOrigin
from mirror.oci.digest import Digest
from tests.hosting import APP, hosted_of, office


async def test_hosted_registry_is_an_origin(tmp_path: Path) -> None:
    async with office(tmp_path / "cache") as mirror:
        origin: ContentOrigin = hosted_of(mirror).content
        assert not (await origin.referrers(APP, Digest.of(b"x"), ())).filtered
