"""A second fake upstream."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.registry import FakeRegistry


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """Another mirror of the same upstream."""
    async with FakeRegistry() as fake:
        yield fake
