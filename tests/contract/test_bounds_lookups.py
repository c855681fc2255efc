"""A flood of names at a saturated mirror: few look-ups at a time, and other clients do not wait behind it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.util.fairness.turns import LEAST
from mirror.util.single_flight import MOST_RUNNING
from mirror.web.departures import CROWD
from tests.fakes.site import Seen, Site
from tests.running import NEVER, Running, configured, serving
from tests.wire import Reply, Wire, get, request_head

BODY = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()
HEADERS = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(BODY))}
BLOB = b"a small blob"

# Addresses of the client that floods, and of another one.
FLOOD, OTHER = "127.0.0.2", "127.0.0.3"


class GatedRegistry:
    """An upstream that has each tag; while `gated`, each request waits until `release` lets it go on."""

    def __init__(self) -> None:
        self.gated = False
        self.arrived: list[str] = []
        self.changed = asyncio.Event()
        self._gates: list[asyncio.Event] = []

    async def __call__(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        self.arrived.append(seen.path.rpartition("/")[2])
        self.changed.set()
        if self.gated:
            gate = asyncio.Event()
            self._gates.append(gate)
            await gate.wait()
        if "/blobs/" in seen.path:
            return web.Response(body=BLOB)
        return web.Response(body=BODY, headers=HEADERS)

    async def wait_for(self, count: int) -> None:
        """Wait until so many requests have come."""
        while len(self.arrived) < count:
            self.changed.clear()
            await self.changed.wait()

    def release(self, count: int) -> None:
        """Answer the oldest `count` requests that wait."""
        for gate in self._gates[:count]:
            gate.set()
        del self._gates[:count]

    def open(self) -> None:
        """Answer all requests."""
        self.gated = False
        self.release(len(self._gates))


@asynccontextmanager
async def flooded(
    registry: GatedRegistry, cache: Path, names: int
) -> AsyncIterator[tuple[Running, list[Wire]]]:
    """Serve a mirror that takes itself for saturated, of which one client has asked for `names` tags."""
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(Site(registry))
        server = {"header_timeout": NEVER}  # the registry answers at the end
        config = configured(cache, {"u.test": site.url}, upstream={"max_connections": 1000}, server=server)
        mirror = await stack.enter_async_context(serving(config))
        for path in ("manifests/fresh", f"blobs/{Digest.of(BLOB)}"):
            assert (await get(mirror.address, f"/v2/u.test/a/{path}")).status == 200
        registry.gated, lookups = True, mirror.service.lookups
        lookups.saturated = lambda: True
        lookups.turn_seconds = lookups.wait_seconds = NEVER
        lookups.window = LEAST
        registry.arrived.clear()
        wires = []
        for number in range(names):
            wires.append(await stack.enter_async_context(await Wire.open(mirror.address, client=FLOOD)))
            wires[-1].send("GET", f"/v2/u.test/a/manifests/t{number}")
        await registry.wait_for(min(names, LEAST))
        await queued(mirror, names - LEAST)
        yield mirror, wires
        registry.open()


async def queued(mirror: Running, count: int) -> None:
    """Wait until `count` look-ups wait for a turn."""
    while mirror.service.lookups.waiting != count:  # noqa: ASYNC110  # each request reads the disk first
        await asyncio.sleep(0)


async def asked(mirror: Running, path: str) -> Reply:
    """Return what the other client gets."""
    async with await Wire.open(mirror.address, client=OTHER) as wire:
        wire.send("GET", f"/v2/u.test/a/{path}")
        return await wire.reply()


async def test_saturated_mirror_asks_the_upstream_a_few_things_at_a_time(tmp_path: Path) -> None:
    """The upstream gets LEAST requests at a time, and in the end each client its answer."""
    registry = GatedRegistry()
    async with flooded(registry, tmp_path, 3 * LEAST) as (mirror, wires):
        await mirror.service.statistics.refresh()
        assert await mirror.metric("registry_mirror_lookups_waiting") == 2 * LEAST
        for turn in range(1, 3):
            assert len(registry.arrived) == turn * LEAST
            registry.release(LEAST)
            await registry.wait_for((turn + 1) * LEAST)
        registry.open()
        assert {(await wire.reply()).status for wire in wires} == {200}
        assert mirror.service.lookups.waiting == 0


async def test_saturated_mirror_answers_from_the_cache_without_a_turn(tmp_path: Path) -> None:
    """A fresh tag, its manifest and a blob that is here wait for nothing."""
    registry = GatedRegistry()
    async with flooded(registry, tmp_path, 2 * LEAST) as (mirror, _):
        for path in ("manifests/fresh", f"manifests/{Digest.of(BODY)}", f"blobs/{Digest.of(BLOB)}"):
            assert (await asked(mirror, path)).status == 200
        assert len(registry.arrived) == LEAST


async def test_flood_of_one_client_does_not_delay_the_look_up_of_another(tmp_path: Path) -> None:
    """The other client has the turn after next, however many look-ups of the flood came before."""
    registry = GatedRegistry()
    async with flooded(registry, tmp_path, 4 * LEAST) as (mirror, _):
        waiting = asyncio.ensure_future(asked(mirror, "manifests/other"))
        await queued(mirror, 3 * LEAST + 1)
        registry.release(2)
        await registry.wait_for(LEAST + 2)
        assert "other" in registry.arrived
        registry.open()
        assert (await waiting).status == 200


async def test_look_up_that_has_no_turn_in_time_is_told_to_come_again(tmp_path: Path) -> None:
    """The wait is bounded, and ends as other queues of the mirror do: 429 with Retry-After."""
    registry = GatedRegistry()
    async with flooded(registry, tmp_path, LEAST) as (mirror, _):
        mirror.service.lookups.wait_seconds = 0.0
        reply = await asked(mirror, "manifests/other")
        assert (reply.status, reply.headers["retry-after"]) == (429, "5")
        assert b"this mirror is busy" in reply.body
        assert "other" not in registry.arrived


async def test_look_up_whose_client_has_left_costs_no_turn(tmp_path: Path) -> None:
    """The upstream is not asked for a client that left while its look-up waited."""
    registry = GatedRegistry()
    async with flooded(registry, tmp_path, 3 * LEAST) as (mirror, wires):
        # On a busy machine the first look-ups are not those of the first clients.
        waiting = [number for number in range(len(wires)) if f"t{number}" not in registry.arrived]
        left = waiting[:LEAST]
        for number in left:
            wires[number].reset()
        await queued(mirror, LEAST)
        registry.open()
        stayed = [wire for number, wire in enumerate(wires) if number not in left]
        assert {(await wire.reply()).status for wire in stayed} == {200}
        assert {f"t{number}" for number in left}.isdisjoint(registry.arrived)


async def test_request_of_a_client_that_has_left_is_not_read_in_a_crowd(tmp_path: Path) -> None:
    """Neither parsed nor looked up: clients that stay are answered meanwhile. Probes are always read."""
    registry = GatedRegistry()
    async with flooded(registry, tmp_path, LEAST) as (mirror, _):
        with capture_logs() as lines:
            for _ in range(3 * CROWD):
                leave(mirror, "/v2/u.test/a/manifests/left")
            assert (await asked(mirror, "manifests/fresh")).status == 200
        read = [line["reference"] for line in lines if line["event"] == "request"]
        assert read.count("left") < 2 * CROWD
        assert len([line for line in lines if "left before their requests" in line["event"]]) == 1


def leave(mirror: Running, path: str) -> None:
    """Ask and leave, before the mirror's event loop has accepted the connection."""
    host, _, port = mirror.address.rpartition(":")
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex((host, int(port)))  # on loopback at once
        client.send(request_head("GET", path))


@pytest.mark.slow
async def test_full_table_makes_room_for_another_client(tmp_path: Path) -> None:
    """One client's requests fill the table of an upstream; another client's one is asked nevertheless."""
    registry = GatedRegistry()
    async with flooded(registry, tmp_path, LEAST) as (mirror, _):
        lookups, table = mirror.service.lookups, mirror.service.cache._tags._getting
        lookups.saturated = lambda: False
        lookups.window = 2 * MOST_RUNNING
        async with AsyncExitStack() as stack:
            wires = []
            for number in range(MOST_RUNNING - LEAST):
                wires.append(await stack.enter_async_context(await Wire.open(mirror.address, client=FLOOD)))
                wires[-1].send("GET", f"/v2/u.test/a/manifests/more{number}")
            while not table.full("u.test"):  # noqa: ASYNC110  # each request reads the disk first
                await asyncio.sleep(0)
            await registry.wait_for(MOST_RUNNING)
            waiting = asyncio.ensure_future(asked(mirror, "manifests/other"))
            await registry.wait_for(MOST_RUNNING + 1)
            registry.open()
            assert (await waiting).status == 200
            statuses = sorted([(await wire.reply()).status for wire in wires])
            assert statuses == [200] * (len(wires) - 1) + [429]
