"""One or two fake upstreams, and no pauses."""

from collections.abc import AsyncIterator

import pytest

from mirror.cache import download
from tests.fakes.registry import FakeRegistry


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(download, "PAUSES", (0.0,))


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """Another mirror of the same upstream."""
    async with FakeRegistry() as fake:
        yield fake
