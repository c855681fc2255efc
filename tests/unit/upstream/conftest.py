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


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies of whoever runs the tests are not for servers on 127.0.0.1."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
