"""The server: addresses, and the drain."""

import asyncio
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.service.service import Service
from mirror.web.serving.server import serve
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Reply, Wire


async def test_drain_finishes_running_responses(hub: FakeRegistry, tmp_path: Path) -> None:
    """A running response is completed, no connection is accepted, /readyz says 503, the log counts."""
    with capture_logs() as lines:
        async with serving(configured(tmp_path, {"docker.io": hub.url})) as mirror:
            draining, last = await _drain_in_mid_body(hub, mirror)
    assert (last.status, last.header("connection")) == (200, "close")
    assert (draining.status, json.loads(draining.body)["ready"]) == (503, False)
    (line,) = [line for line in lines if line["event"] == "finishing responses"]
    assert (line["responses"], line["at_most_seconds"]) == (1, mirror.config.server.shutdown_timeout)


async def _drain_in_mid_body(hub: FakeRegistry, mirror: Running) -> tuple[Reply, Reply]:
    """Stop the mirror in the middle of a response; return the later replies to /readyz and /v2/."""
    digest = hub.add_blob("library/x", b"0123456789")
    gate = hub.hold(digest, after=5)
    async with await Wire.open(mirror.address) as idle, await Wire.open(mirror.address) as wire:
        for _ in range(3):  # by then the response is cached
            idle.send("GET", "/v2/")
            assert (await idle.reply()).status == 200
        idle.send("GET", "/readyz")
        assert (await idle.reply()).status == 200
        wire.send("GET", f"/v2/library/x/blobs/{digest}")
        await gate.reached.wait()
        mirror.stop.set()
        while True:
            try:
                (await Wire.open(mirror.address)).writer.close()
            except ConnectionError:
                break
        idle.send("GET", "/readyz")
        draining = await idle.reply()
        idle.send("GET", "/v2/")
        last = await idle.reply()
        gate.release()
        assert (await wire.reply()).body == b"0123456789"
    return draining, last


async def test_drain_has_a_time_limit(hub: FakeRegistry, tmp_path: Path) -> None:
    """After `shutdown_timeout` open connections are closed; the fill can be resumed later."""
    config = configured(tmp_path, {"docker.io": hub.url}, server={"shutdown_timeout": 0.05})
    async with serving(config) as mirror:
        digest = hub.add_blob("library/x", b"0123456789")
        gate = hub.hold(digest, after=5)
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", f"/v2/library/x/blobs/{digest}")
            await gate.reached.wait()
            mirror.stop.set()
            assert await wire.reader.read() == b""


async def test_taken_address_is_named(mirror: Running, tmp_path: Path) -> None:
    """The error names the address and the reason."""
    config = configured(
        tmp_path / "other", {"docker.io": "http://127.0.0.1:9"}, server={"listen": (mirror.address,)}
    )
    service = await Service.open(config)
    with pytest.raises(OSError, match=f"cannot listen on {mirror.address}: .*in use"):
        await serve(service, config, lambda _: None, asyncio.Event())
    await service.close()


async def test_every_address_is_bound_and_announced(hub: FakeRegistry, tmp_path: Path) -> None:
    """IPv6 addresses are printed with brackets, as in a URL."""
    config = configured(tmp_path, {"docker.io": hub.url}, server={"listen": ("127.0.0.1:0", "[::1]:0")})
    service = await Service.open(config)
    addresses: list[str] = []
    stop = asyncio.Event()
    stop.set()
    await serve(service, config, addresses.extend, stop)
    await service.close()
    assert [address.rpartition(":")[0] for address in addresses] == ["127.0.0.1", "[::1]"]
