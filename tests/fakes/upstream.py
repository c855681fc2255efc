"""Registry client for a fake, with a clock that moves only when told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.upstream.registry_client import RegistryClient


class FakeTime:
    """Clock and sleep in one; `slept` records the seconds of each sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def settings(url: str, **values: Any) -> UpstreamSettings:
    """Return the settings of an upstream `docker.io` at `url`."""
    return UpstreamSettings.model_validate({"name": "docker.io", "url": url, **values})


@asynccontextmanager
async def registry_at(
    url: str, time: FakeTime | None = None, metrics: Metrics | None = None, **values: Any
) -> AsyncIterator[RegistryClient]:
    """Yield an open `RegistryClient`; `values` are settings of the upstream."""
    time = time or FakeTime()
    # In a thread: the configuration reads the files that it names.
    chosen = await asyncio.to_thread(settings, url, **values)
    registry = RegistryClient(chosen, metrics or Metrics(), time, time.sleep)
    try:
        yield registry
    finally:
        await registry.close()
