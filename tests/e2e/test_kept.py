"""Real clients and an image that its registry has removed: kept, each pulls it as if nothing had happened."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.test_gone_upstream import pull
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

METRIC = 'registry_mirror_gone_served_total{upstream="docker.io"}'


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("on_gone", ["keep", "drop"])
@pytest.mark.parametrize("name", ["crane", "regctl", "oras", "skopeo"])
async def test_client_pulls_an_image_that_is_gone_upstream(
    fake: FakeRegistry, tmp_path: Path, name: str, on_gone: str
) -> None:
    """The warning is no error for any client; by default the image is missing for all of them."""
    fake.add_image("library/x", "1", [b"a layer"])
    fake.add_image("library/x", "other", [b"of a repository that stays"])
    tags = {"fresh": 0, "on_gone": on_gone}
    folders = [tmp_path / each for each in ("before", "after")]
    for folder in folders:
        await asyncio.to_thread(folder.mkdir)
    async with serving(configured(tmp_path / "cache", {"docker.io": fake.url}, tags=tags)) as mirror:
        assert await pull(name, mirror.address, folders[0]) == ""
        del fake.repository("library/x").tags["1"]
        complaint = await pull(name, mirror.address, folders[1])
        assert (complaint == "") is (on_gone == "keep"), complaint
        assert (await mirror.metric(METRIC) > 0) is (on_gone == "keep")
