"""All upstreams together."""

from pathlib import Path

import pytest

from mirror.config import CacheSettings, Config
from mirror.metrics import Metrics
from mirror.oci.reference import Tag
from mirror.upstream.sources import Upstreams
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import settings


async def test_by_canonical_name_in_order(tmp_path: Path) -> None:
    """Upstreams are found by canonical name, listed as configured, and closed together."""
    async with FakeRegistry() as fake:
        image = fake.add_image("a", "latest", [])
        config = Config(
            cache=CacheSettings(dir=tmp_path),
            upstreams=(
                settings("http://127.0.0.1:1", name="quay.io"),
                settings(fake.url, aliases=("hub",)),
            ),
        )
        upstreams = Upstreams(config, Metrics())
        assert (list(upstreams), len(upstreams)) == (["quay.io", "docker.io"], 2)
        info = await upstreams["docker.io"].head_manifest("a", Tag("latest"))
        assert info.digest == image.manifest
        with pytest.raises(KeyError):
            upstreams["hub"]
        await upstreams.close()
