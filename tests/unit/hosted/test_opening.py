"""Hosted registries of a configuration: opened together, looked after together."""

from pathlib import Path

from mirror.oci.reference import Tag
from tests.hosting import APP, hosted_of, office, push_image


async def test_upkeep_leaves_what_is_kept(tmp_path: Path) -> None:
    async with office(tmp_path / "cache", retention=({"keep_last": 1},)) as mirror:
        digest = await push_image(hosted_of(mirror), APP, "1")
        assert mirror.service._hosted_upkeep is not None
        await mirror.service._hosted_upkeep.run()
        assert (await mirror.service.cache.origin(APP).get_manifest(APP, Tag("1"))).digest == digest
