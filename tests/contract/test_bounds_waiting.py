"""Floods of unique names at a slow upstream: what runs for one upstream is bounded."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from mirror.cache.tags import MOST_REFRESHES
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.util.fairness.client import set_client
from mirror.util.single_flight import MOST_RUNNING
from tests.fakes.site import Seen, Site
from tests.running import configured, serving
from tests.wire import Wire, get

BODY = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()
HEADERS = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(BODY))}


class Clock:
    """Seconds since the epoch, which a test moves."""

    now = 1e9

    def __call__(self) -> float:
        return self.now


class SlowRegistry:
    """An upstream that has each tag; while `slow`, each request waits for `gate`."""

    def __init__(self) -> None:
        self.slow = False
        self.gate = asyncio.Event()
        self.waiting = 0
        self.most_waiting = 0
        self.arrived = asyncio.Event()

    async def __call__(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        self.arrived.set()
        if self.slow:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            await self.gate.wait()
            self.waiting -= 1
        return web.Response(body=BODY, headers=HEADERS)


async def test_flood_of_stale_tags_starts_few_requests(tmp_path: Path) -> None:
    """Clients get the stale answers; the upstream gets MOST_REFRESHES requests at a time."""
    registry, clock, names = SlowRegistry(), Clock(), 10 * MOST_REFRESHES
    tags = {"fresh": 60, "stale_while_revalidate": 3600}
    async with Site(registry) as site:
        config = configured(tmp_path, {"u.test": site.url}, tags=tags, upstream={"max_connections": 1000})
        async with serving(config, clock) as mirror, await Wire.open(mirror.address) as wire:
            for stale in (False, True):
                for name in range(names):
                    wire.send("GET", f"/v2/u.test/a/manifests/t{name}")
                    reply = await wire.reply("GET")
                    assert (reply.status, "warning" in reply.headers) == (200, stale)
                registry.slow, clock.now = True, clock.now + 61
                registry.arrived.clear()
            running = [each for each in asyncio.all_tasks() if each.get_name().startswith("refresh ")]
            assert len(running) == MOST_REFRESHES
            registry.gate.set()
            registry.slow = False
            await asyncio.wait(running)
            assert registry.most_waiting <= MOST_REFRESHES
            # A refresh that was left out is made later.
            registry.arrived.clear()
            await get(mirror.address, f"/v2/u.test/a/manifests/t{names - 1}")
            await registry.arrived.wait()


@pytest.mark.slow
async def test_flood_of_new_tags_is_refused_beyond_a_bound(tmp_path: Path) -> None:
    """Clients that wait are bounded for each upstream; a further one is told at once, and others go on."""
    registry = SlowRegistry()
    registry.slow = True
    async with Site(registry) as site, Site(registry) as other:
        config = configured(tmp_path, {"u.test": site.url, "v.test": other.url})
        async with serving(config) as mirror:
            cache, table = mirror.service.cache, mirror.service.cache._tags._getting
            set_client("127.0.0.1")  # that of the one more: another one's would take the place of the last
            repository = Repository("u.test", "a")
            tags = [Tag(f"t{number}") for number in range(MOST_RUNNING)]
            calls = [
                asyncio.ensure_future(cache.origin(repository).get_manifest(repository, tag)) for tag in tags
            ]
            while not table.full("u.test"):  # noqa: ASYNC110  # each call reads the disk first
                await asyncio.sleep(0)
            reply = await get(mirror.address, "/v2/u.test/a/manifests/one-more")
            assert (reply.status, reply.headers["retry-after"]) == (429, "5")
            assert b"this mirror is busy" in reply.body
            assert not table.full("v.test")
            registry.gate.set()
            assert (await get(mirror.address, "/v2/v.test/a/manifests/t")).status == 200
            assert {each.data for each in await asyncio.gather(*calls)} == {BODY}
            assert not table.full("u.test")
