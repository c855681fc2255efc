"""Fixtures of a hosted registry to which every client of this machine may push."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mirror.config.schema import Config
from tests.fakes.pusher import Pusher
from tests.running import Running, configured, serving

ANYBODY = {"name": "office", "effect": "allow", "networks": ["127.0.0.1"], "actions": ["push", "delete"]}


async def hosting(folder: Path, upstream: str = "http://127.0.0.1:9", **sections: Any) -> Config:
    """Return a configuration with the hosted registry `office`, beside hub.test at `upstream`."""
    hosted = sections.pop("hosted", [{"name": "office", "hosts": ["office.lan"]}])
    rules = sections.pop("rules", [ANYBODY])
    return await asyncio.to_thread(
        configured, folder / "cache", {"hub.test": upstream}, hosted=hosted, rules=rules, **sections
    )


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(await hosting(tmp_path)) as mirror:
        yield mirror


@pytest.fixture
async def pusher(running: Running) -> AsyncIterator[Pusher]:
    async with await Pusher.open(running.address) as client:
        yield client
