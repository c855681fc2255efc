"""The server: addresses, unexpected errors, and the drain."""

import asyncio
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.service import Service
from mirror.web.app import serve
from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Reply, Wire, get


async def test_unexpected_error_is_an_oci_error_with_an_id(
    mirror: Running, image: FakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is a 500 that refers to the log, not a dropped connection."""
    monkeypatch.setattr(mirror.service.cache, "_tags", None)
    with capture_logs() as lines:
        reply = await get(mirror.address, "/v2/library/x/manifests/t")
    failure = json.loads(reply.body)["errors"][0]
    assert (reply.status, failure["code"]) == (500, "UNKNOWN")
    (line,) = (each for each in lines if each["event"] == "unexpected error")
    assert line["id"] in failure["message"]


async def test_unexpected_error_in_a_body_cuts_it_short(
    mirror: Running, hub: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the head, the client would take an error document for content: the body is short instead."""
    digest = hub.add_blob("library/x", b"0123456789")

    async def broken(*_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr("mirror.web.responses.BodySender.send", broken)
    reply = await get(mirror.address, f"/v2/library/x/blobs/{digest}")
    assert (reply.status, reply.body, reply.complete) == (200, b"", False)


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
