"""The whole examination of a mirror's machine: the local part first, then all upstreams at once."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from mirror.config.endpoints import UpstreamSettings
from mirror.config.schema import Config
from mirror.doctor.finding import Diagnosis, fine
from mirror.doctor.machine import examine_disk, examine_limits
from mirror.doctor.network import Endpoint, examine
from mirror.doctor.registry import examine_registry
from mirror.doctor.running import examine_running
from mirror.upstream.http.proxy import Proxies
from mirror.util.tasks import Tasks

# Upstreams that are examined at once: each costs a thread and a few connections.
AT_ONCE = 8


def examine_machine(config: Config, ca: str | None = None) -> list[Diagnosis]:
    """Return the findings about this machine and the mirror that runs on it. Blocks."""
    running = examine_running(config.server, ca)
    disk = examine_disk(config.cache.dir, config.cache)
    return [*running.findings, *disk, *examine_limits(config, running.pid)]


async def examine_upstreams(
    config: Config, images: Mapping[str, str] = {}, names: Sequence[str] = ()
) -> AsyncIterator[list[Diagnosis]]:
    """Yield the findings of one upstream after another, as they are done.

    `images`: REPOSITORY:TAG by upstream, asked for in the place of a usual one. `names`: only these.
    """
    if config.server.offline:
        yield [fine("upstreams", "server.offline is on: none is asked")]
        return
    proxies, gate, tasks = Proxies.from_environment(), asyncio.Semaphore(AT_ONCE), Tasks()

    async def one(settings: UpstreamSettings) -> list[Diagnosis]:
        async with gate:
            return await _upstream(settings, proxies, images.get(settings.name))

    chosen = [each for each in config.upstreams if not names or each.name in names]
    running = [tasks.spawn(one(each), name=f"examine {each.name}") for each in chosen]
    try:
        for done in asyncio.as_completed(running):
            yield await done
    finally:
        await tasks.close()


async def _upstream(settings: UpstreamSettings, proxies: Proxies, image: str | None) -> list[Diagnosis]:
    """Return the findings of an upstream and its other sources."""
    findings, reached = await asyncio.to_thread(examine, Endpoint(settings.name, settings), proxies)
    if reached:
        findings += await examine_registry(settings, image)
    for source in settings.sources:
        endpoint = Endpoint(f"{settings.name} at {source.url}", source, "[[upstream.sources]]")
        findings += (await asyncio.to_thread(examine, endpoint, proxies))[0]
    return findings
