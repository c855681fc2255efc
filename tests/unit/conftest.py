"""Fixtures of the cache's tests: one or two fake upstreams with a mirror in front."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.schema import Config
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, Running, configured, serving


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


def two_upstreams(hub: FakeRegistry, quay: FakeRegistry, cache: Path, **tags: float) -> Config:
    """A configuration with these `tags` settings."""
    return configured(cache, {"docker.io": hub.url, "quay.io": quay.url}, tags=tags)


@pytest.fixture
async def mirror(hub: FakeRegistry, quay: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    config = two_upstreams(hub, quay, tmp_path / "cache", fresh=60, fallback_after=NEVER)
    async with serving(config) as running:
        yield running


@pytest.fixture
async def forgetful(hub: FakeRegistry, quay: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """A mirror for which no tag entry is ever fresh."""
    config = two_upstreams(hub, quay, tmp_path / "cache", fresh=0, fallback_after=NEVER)
    async with serving(config) as running:
        yield running


@pytest.fixture
async def impatient(hub: FakeRegistry, quay: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """A mirror for which no tag entry is ever fresh, and which waits 50 ms for an upstream that hangs.

    On a busy machine no upstream answers within them: for tests in which none is to.
    """
    config = two_upstreams(hub, quay, tmp_path / "cache", fresh=0, fallback_after=0.05)
    async with serving(config) as running:
        yield running
