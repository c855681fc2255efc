"""A mirror with a hosted registry to which everybody on this machine may push."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.pusher import Pusher
from tests.running import Running, configured, serving

ANYBODY = {"name": "all", "effect": "allow", "networks": ["127.0.0.1"], "actions": ["push", "delete"]}


@pytest.fixture
async def hosting(tmp_path: Path) -> AsyncIterator[Running]:
    config = await asyncio.to_thread(
        configured,
        tmp_path / "cache",
        {"docker.io": "http://127.0.0.1:9"},
        hosted=[{"name": "office"}],
        rules=[ANYBODY],
    )
    async with serving(config) as running:
        yield running


@pytest.fixture
async def pusher(hosting: Running) -> AsyncIterator[Pusher]:
    async with await Pusher.open(hosting.address) as client:
        yield client
