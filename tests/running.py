"""Whole mirror in the test's process: real sockets, real files, in front of fake registries."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.config.endpoints import UpstreamSettings
from mirror.config.schema import CacheSettings, Config
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.service.service import Service
from mirror.transfer.plan import DEFAULT_LIMITS, PlanLimits
from mirror.util.tasks import Tasks
from mirror.web.serving.server import serve
from tests.fakes.registry import FakeRegistry

# Small chunks, so that blobs of a test have several; more than 4 MiB is still needed to pass the holdback.
CHUNK = 64 * 1024

# A blob of which a part may be sent before the whole is verified: larger than the holdback.
LARGE = 4 * 1024 * 1024 + 3 * CHUNK
LARGE_DATA = bytes(range(256)) * (LARGE // 256)  # one copy for all tests


# Longer than any test may take, in seconds: an upstream's answer is waited for, however busy the machine is.
NEVER = 3600.0


@dataclass
class Running:
    """A mirror that serves at `address`; setting `stop` ends it."""

    address: str
    service: Service
    config: Config
    stop: asyncio.Event

    async def landed(self, digest: Digest) -> None:
        """Wait until no fill of `digest` runs: a client has the bytes before the store adopts them."""
        flight = self.service.cache._blobs._flights.get(digest)
        if flight is not None:
            await flight.wait_done()

    async def settled(self) -> None:
        """Wait until no fill runs: store, metrics and log are up to date then."""
        tasks = self.service._tasks._running
        while fills := [each for each in tasks if each.get_name().startswith(("fill ", "doubt "))]:
            await asyncio.wait(fills)

    async def metric(self, line: str) -> float:
        """Value of the metric with the name and labels `line`; 0 when it was never counted."""
        body, _ = await asyncio.to_thread(self.service.metrics.render)
        for each in body.decode().splitlines():
            if each.startswith(f"{line} "):
                return float(each.rpartition(" ")[2])
        return 0.0


def configured(cache: Path, upstreams: dict[str, str], **sections: Any) -> Config:
    """Configuration with these upstreams, NAME -> URL; the first is the default.

    `sections` are sections of the file; the section `upstream` is that of each upstream, `upstream_of`
    has further values by name.
    """
    each, some = sections.pop("upstream", {}), sections.pop("upstream_of", {})
    settings = tuple(
        UpstreamSettings.model_validate(
            {
                "name": name,
                "url": url,
                "aliases": ("registry-1.docker.io", "index.docker.io") if name == "docker.io" else (),
                "hosts": () if name.startswith("[") else (f"{name}.mirror.test",),
                "attempts": 1,
                **each,
                **some.get(name, {}),
            }
        )
        for name, url in upstreams.items()
    )
    # Without prefetch the upstream is asked for what the test asks for, and nothing else.
    sections["fill"] = {"chunk_size": CHUNK, "attempts": 3, "prefetch": 0, **sections.get("fill", {})}
    # Nothing is evicted, even when the disk that the test runs on is nearly full.
    kept = CacheSettings(dir=cache, min_free=Amount())
    return Config.model_validate({"cache": kept, "upstreams": settings, **sections})


@asynccontextmanager
async def serving(
    config: Config, clock: Callable[[], float] = time.time, limits: PlanLimits = DEFAULT_LIMITS
) -> AsyncIterator[Running]:
    """Serve `config` on a free port of loopback; `clock` returns the time in seconds since the epoch."""
    config = config.model_copy(
        update={"server": config.server.model_copy(update={"listen": ("127.0.0.1:0",)})}
    )
    loop = asyncio.get_running_loop()
    addresses: asyncio.Future[Sequence[str]] = loop.create_future()
    stop = asyncio.Event()
    service = await Service.open(config, clock, limits)
    tasks = Tasks()
    server = tasks.spawn(serve(service, config, addresses.set_result, stop), name="serve")
    try:
        yield Running((await addresses)[0], service, config, stop)
    finally:
        stop.set()
        await server
        await service.close()
        await tasks.close()


@asynccontextmanager
async def mirror_of(
    fake: FakeRegistry, cache: Path, limits: PlanLimits = DEFAULT_LIMITS, **sections: Any
) -> AsyncIterator[Running]:
    """Serve a mirror whose docker.io is `fake`."""
    config = configured(cache, {"docker.io": fake.url}, **sections)
    async with serving(config, limits=limits) as running:
        yield running
