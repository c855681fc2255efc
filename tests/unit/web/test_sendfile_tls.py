"""Sending over TLS: the same bytes, ranges and guarantees, through the transport."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.running import CHUNK, LARGE, Running, configured, serving
from tests.unit.web.test_sendfile import DATA, url
from tests.wire import Reply, Wire


@pytest.fixture
async def authority(tmp_path: Path) -> Authority:
    return await asyncio.to_thread(Authority, tmp_path)


@pytest.fixture
async def mirror(hub: FakeRegistry, authority: Authority, tmp_path: Path) -> AsyncIterator[Running]:
    server = {"tls_certificate": authority.server_file, "tls_key": authority.server_file}
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, server=server)
    async with serving(config) as running:
        yield running


@pytest.fixture
async def wire(mirror: Running, authority: Authority) -> AsyncIterator[Wire]:
    """A connection with a verified certificate."""
    async with await Wire.open(mirror.address, await asyncio.to_thread(authority.client_context)) as opened:
        yield opened


async def ask(wire: Wire, digest: Digest, *headers: str) -> Reply:
    wire.send("GET", url(digest), headers)
    return await wire.reply()


async def test_tls_blob_and_its_ranges(mirror: Running, hub: FakeRegistry, wire: Wire) -> None:
    """A cold blob, then a warm one, whole and in ranges, on one connection."""
    digest = hub.add_blob("library/x", DATA)
    assert (await ask(wire, digest)).body == DATA
    await mirror.landed(digest)
    assert (await ask(wire, digest)).body == DATA
    part = await ask(wire, digest, "Range: bytes=1000000-9999999")
    assert (part.status, part.body) == (206, DATA[1000000:10000000])
    several = await ask(wire, digest, "Range: bytes=0-9,20-29")
    assert several.complete
    assert DATA[20:30] in several.body


async def test_tls_growing_blob(mirror: Running, hub: FakeRegistry, wire: Wire) -> None:
    """Bytes that have arrived are sent while the rest is still on its way."""
    data = DATA[:LARGE]
    digest = hub.add_blob("library/x", data)
    gate = hub.hold(digest, after=LARGE - 2 * CHUNK)
    wire.send("GET", url(digest))
    assert (await wire.head()).status == 200
    assert await wire.reader.readexactly(CHUNK) == data[:CHUNK]
    gate.release()
    assert await wire.reader.readexactly(LARGE - CHUNK) == data[CHUNK:]


async def test_tls_client_that_leaves(mirror: Running, hub: FakeRegistry, wire: Wire) -> None:
    """The request ends, and the mirror can stop."""
    digest = hub.add_blob("library/x", DATA)
    wire.send("GET", url(digest))
    await wire.head()
    wire.writer.transport.abort()
    await mirror.landed(digest)


async def test_tls_port_refuses_plain_http_silently(
    mirror: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """A client without TLS gets no response, and causes no log line."""
    caplog.set_level(logging.INFO)
    async with await Wire.open(mirror.address) as plain:
        plain.send("GET", "/v2/")
        assert await plain.reader.read() == b""
    assert not [each for each in caplog.records if each.levelno > logging.INFO or each.exc_info]
