"""Bounds of what clients learn: probes and metrics may have a listener for operators alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.service.service import Service
from mirror.system.sockets import bind_all, format_address
from mirror.util.tasks import Tasks
from mirror.web.operations import CONNECTIONS
from mirror.web.serving.server import Listeners, serve
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, mirror_of
from tests.wire import Wire, get, head

LOCAL = "127.0.0.1:0"


class Both(Running):
    """A mirror with a listener for operators at `operations`."""

    operations: str


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Both]:
    config = configured(
        tmp_path, {"docker.io": fake.url}, server={"operations_listen": (LOCAL,), "connections": 16}
    )
    stop, tasks, ready = asyncio.Event(), Tasks(), asyncio.Event()
    service = await Service.open(config)
    sockets, operations = bind_all([LOCAL]), bind_all([LOCAL])
    listeners = Listeners(sockets, None, operations=operations)
    server = tasks.spawn(serve(service, config, lambda _: ready.set(), stop, listeners), name="serve")
    await ready.wait()
    both = Both(format_address(sockets[0]), service, config, stop)
    both.operations = format_address(operations[0])
    yield both
    stop.set()
    await server
    await service.close()
    await tasks.close()


async def test_probes_and_metrics_are_for_operators_alone(mirror: Both) -> None:
    """Clients get /healthz, and for the others the error of a path that does not exist."""
    assert (await get(mirror.address, "/healthz")).body == b"ok\n"
    for path in ("/readyz", "/metrics"):
        for reply in (await get(mirror.address, path), await head(mirror.address, path)):
            assert reply.status == 404
        assert json.loads((await get(mirror.address, path)).body)["errors"][0]["code"] == "NAME_UNKNOWN"
        assert (await get(mirror.operations, path)).status == 200
    assert (await get(mirror.operations, "/healthz")).body == b"ok\n"


async def test_operators_listener_serves_no_content(mirror: Both) -> None:
    """No client can pull there, past the limits of the other listener."""
    for path in ("/v2/", "/", "/v2/library/x/manifests/t"):
        reply = await get(mirror.operations, path, "Accept: text/html")
        assert reply.status == 404
        assert reply.header("server") == "registry-mirror"


async def test_landing_page_links_what_clients_may_read(mirror: Both) -> None:
    """The page does not name what is not there."""
    page = (await get(mirror.address, "/", "Accept: text/html")).body
    assert b"/healthz" in page
    assert b"/readyz" not in page
    assert b"/metrics" not in page


async def test_flood_of_clients_leaves_operators_their_place(mirror: Both) -> None:
    """The listeners share no limit; and silent connections to either make room for one that asks."""
    wires = [await Wire.open(mirror.address) for _ in range(40)]
    assert (await get(mirror.operations, "/readyz")).status == 200
    silent = [await Wire.open(mirror.operations) for _ in range(CONNECTIONS + 1)]
    wires += silent
    async with asyncio.timeout(60):
        assert await silent[0].reader.read() == b""
        assert (await get(mirror.operations, "/readyz")).status == 200
    assert (await get(mirror.address, "/healthz")).status == 200
    for wire in wires:
        wire.writer.close()


async def test_all_is_on_one_listener_by_default(fake: FakeRegistry, tmp_path: Path) -> None:
    """Nothing changes without `server.operations_listen`."""
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await get(mirror.address, path)).status == 200
        assert b"/metrics" in (await get(mirror.address, "/", "Accept: text/html")).body
