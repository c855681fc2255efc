"""Fixtures of the upstream tests."""

from collections.abc import AsyncIterator

import pytest

from mirror.tasks import Tasks


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    """Tasks that are cancelled at the end of the test."""
    tasks = Tasks()
    yield tasks
    await tasks.close()
