"""A fake docker.io with one image, and a mirror in front of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def mirror(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    config = configured(tmp_path / "cache", {"docker.io": hub.url, "quay.io": hub.url})
    async with serving(config) as running:
        yield running


@pytest.fixture
def image(hub: FakeRegistry) -> FakeImage:
    return hub.add_image("library/x", "t", [b"0123456789"])
