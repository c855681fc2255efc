"""What the tests of the cache stand on: one or two fake upstreams with a mirror in front."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    """docker.io, the default."""
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def quay() -> AsyncIterator[FakeRegistry]:
    """quay.io."""
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def mirror(hub: FakeRegistry, quay: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    config = configured(
        tmp_path / "cache",
        {"docker.io": hub.url, "quay.io": quay.url},
        tags={"fresh": 60, "fallback_after": 5},
    )
    async with serving(config) as running:
        yield running


@pytest.fixture
async def forgetful(hub: FakeRegistry, quay: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """A mirror for which no tag entry is ever fresh, and which waits 50 ms for an upstream at most."""
    config = configured(
        tmp_path / "cache",
        {"docker.io": hub.url, "quay.io": quay.url},
        tags={"fresh": 0, "fallback_after": 0.05},
    )
    async with serving(config) as running:
        yield running
