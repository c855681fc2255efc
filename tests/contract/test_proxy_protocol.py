"""PROXY protocol: the client is who the proxy says, for rules, log and remembered responses."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.access.proxy_protocol import SIGNATURE
from mirror.web.accept import acceptor
from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.running import LARGE, Running, configured, serving
from tests.wire import Reply, Wire, get, request_head

# Listed as a proxy; not listed; two clients behind the proxy, of which the rules allow the first.
PROXY, OTHER = "127.0.0.1", "127.0.0.2"
OFFICE, STRANGER = "192.0.2.7", "198.51.100.9"
RULES = [
    {"name": "office", "effect": "allow", "networks": ["192.0.2.0/24"]},
    {"name": "health", "effect": "allow", "networks": [PROXY], "repositories": ["hub.test/check/*"]},
    {"name": "by header", "effect": "allow", "networks": ["203.0.113.5"]},
]
SERVER = {"proxy_protocol": [PROXY], "trusted_proxies": ["10.9.0.0/16"]}


def line(client: str) -> bytes:
    return f"PROXY TCP4 {client} 203.0.113.1 51234 443\r\n".encode()


def binary(client: str) -> bytes:
    """A header of version 2 with a TLV."""
    addresses = socket.inet_aton(client) + bytes(4) + struct.pack(">HH", 51234, 443)
    rest = addresses + b"\x02\x00\x08hub.test"
    return SIGNATURE + b"\x21\x11" + len(rest).to_bytes(2) + rest


HEADERS = {"v1": line, "v2": binary}


class Front:
    """A mirror behind a proxy."""

    def __init__(self, mirror: Running, hub: FakeRegistry) -> None:
        self.mirror, self.hub = mirror, hub
        self.image: FakeImage = hub.add_image("team/app", "1", [b"small", bytes(LARGE)])
        hub.add_image("check/app", "1", [b"health"])

    async def ask(self, header: bytes, path: str, *headers: str, sender: str = PROXY) -> Reply:
        async with await Wire.open(self.mirror.address, client=sender) as wire:
            wire.writer.write(header + request_head("GET", path, headers))
            return await wire.reply()


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with FakeRegistry() as hub:
        access: Any = {"default": "deny"}
        config = configured(
            tmp_path / "cache", {"hub.test": hub.url}, server=SERVER, rules=RULES, access=access
        )
        async with serving(config) as mirror:
            yield Front(mirror, hub)


MANIFEST = "/v2/team/app/manifests/1"


@pytest.mark.parametrize("version", HEADERS)
async def test_client_is_who_the_proxy_says(front: Front, version: str) -> None:
    """Rules and access line go by the address in the header."""
    header = HEADERS[version]
    with capture_logs() as lines:
        assert (await front.ask(header(OFFICE), MANIFEST)).status == 200
        assert (await front.ask(header(STRANGER), MANIFEST)).status == 404
    assert [each["client"] for each in lines if each["event"] == "request"] == [OFFICE, STRANGER]


@pytest.mark.parametrize("version", HEADERS)
async def test_remembered_response_does_not_cross_clients_of_a_proxy(front: Front, version: str) -> None:
    """Two clients with the same head, in turn and on connections that stay, from one proxy."""
    header, head = HEADERS[version], request_head("GET", MANIFEST)
    async with (
        await Wire.open(front.mirror.address) as office,
        await Wire.open(front.mirror.address) as stranger,
    ):
        office.writer.write(header(OFFICE))
        stranger.writer.write(header(STRANGER))
        for _ in range(5):
            for wire, status in ((office, 200), (stranger, 404)):
                wire.writer.write(head)
                assert (await wire.reply()).status == status


@pytest.mark.parametrize("version", HEADERS)
async def test_large_blob_is_sent_behind_a_header(front: Front, version: str) -> None:
    """`sendfile` works on the connection, when the blob is new and when it is cached."""
    digest = front.image.layers[1]
    for _ in range(2):
        reply = await front.ask(HEADERS[version](OFFICE), f"/v2/team/app/blobs/{digest}")
        assert (reply.status, reply.body == bytes(LARGE)) == (200, True)
        await front.mirror.landed(digest)


@pytest.mark.parametrize(
    "header",
    [b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\x00\x00\x00", SIGNATURE + b"\x21\x00\x00\x02xx"],
    ids=["unknown", "local", "unspec"],
)
async def test_header_without_a_client_leaves_the_address_of_the_proxy(front: Front, header: bytes) -> None:
    """Health checks of a proxy have it; the rules for the proxy's address hold."""
    with capture_logs() as lines:
        assert (await front.ask(header, "/healthz")).status == 200
        assert (await front.ask(header, "/v2/check/app/manifests/1")).status == 200
        assert (await front.ask(header, MANIFEST)).status == 404
    assert {each["client"] for each in lines if each["event"] == "request"} == {PROXY}


@pytest.mark.parametrize("version", HEADERS)
async def test_header_may_come_byte_by_byte(front: Front, version: str) -> None:
    """The next byte is sent when the mirror has taken the one before."""
    async with await Wire.open(front.mirror.address) as wire:
        connection = wire.writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEADERS[version](OFFICE):
            wire.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        wire.send("GET", MANIFEST)
        assert (await wire.reply()).status == 200


async def test_forwarded_header_is_believed_from_a_trusted_proxy_behind_the_first(front: Front) -> None:
    """A chain: the second proxy is known by the PROXY header, and the client by its X-Forwarded-For."""
    forwarded = "X-Forwarded-For: 203.0.113.5"
    assert (await front.ask(line("10.9.0.1"), MANIFEST, forwarded)).status == 200
    assert (await front.ask(line(STRANGER), MANIFEST, forwarded)).status == 404


@pytest.mark.parametrize(
    "sent", [request_head("GET", "/healthz"), b"PROXY TCP4 x y 1 1\r\n", b"\x16\x03\x01"]
)
async def test_proxy_without_a_right_header_is_refused_and_named(front: Front, sent: bytes) -> None:
    """Nothing behind a wrong header is read, not even /healthz."""
    with capture_logs() as lines:
        async with await Wire.open(front.mirror.address) as wire:
            wire.writer.write(sent + request_head("GET", MANIFEST))
            answer = await wire.reader.read()
    assert answer == b"" if sent[0] == 0x16 else answer.startswith(b"HTTP/1.1 400 ")
    assert [(each["event"], each["peer"]) for each in lines] == [
        ("connection refused for its PROXY header", PROXY)
    ]
    assert await front.mirror.metric('registry_mirror_refused_connections_total{reason="proxy"}') == 1


async def test_header_that_does_not_come_is_refused_after_some_time(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "HEADER_SECONDS", 0.05)
    with capture_logs() as lines:
        async with await Wire.open(front.mirror.address) as wire:
            wire.writer.write(b"PROXY TCP4 ")
            assert await wire.reader.read() == b""
    assert [each["reason"] for each in lines] == ["no PROXY header within 0.05 s"]


@pytest.mark.parametrize("version", HEADERS)
async def test_header_from_elsewhere_is_refused_and_named(front: Front, version: str) -> None:
    """The client gets 400, and no address that it chose itself."""
    with capture_logs() as lines:
        reply = await front.ask(HEADERS[version](OFFICE), MANIFEST, sender=OTHER)
        assert (await front.ask(b"", MANIFEST, sender=OTHER)).status == 404
    assert (reply.status, b"server.proxy_protocol does not list" in reply.body) == (400, True)
    first = next(each for each in lines if each["event"] == "request")
    assert (first["status"], first["client"]) == (400, OTHER)
    assert "server.proxy_protocol does not list its sender" in first["note"]


async def test_no_header_is_believed_where_no_proxy_is_listed(tmp_path: Path) -> None:
    """The default."""
    async with (
        FakeRegistry() as hub,
        serving(configured(tmp_path / "cache", {"hub.test": hub.url})) as mirror,
    ):
        for header in HEADERS.values():
            async with await Wire.open(mirror.address) as wire:
                wire.writer.write(header(OFFICE) + request_head("GET", "/v2/"))
                assert (await wire.reply()).status == 400
                assert await wire.reader.read() == b""
        assert (await get(mirror.address, "/v2/")).status == 200


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("version", HEADERS)
async def test_header_comes_before_tls(tmp_path: Path, authority: Authority, version: str) -> None:
    """The header in the clear, then TLS, then the request; from elsewhere it is named before TLS begins."""
    pair = authority.server_file
    server = {**SERVER, "tls_certificate": pair, "tls_key": pair}
    context = authority.client_context()
    async with FakeRegistry() as hub:
        image = hub.add_image("team/app", "1", [bytes(LARGE)])
        config = configured(tmp_path / "cache", {"hub.test": hub.url}, server=server, rules=RULES)
        async with serving(config) as mirror:
            async with await Wire.open(mirror.address) as wire:
                wire.writer.write(HEADERS[version](OFFICE))
                await wire.writer.start_tls(context, server_hostname="127.0.0.1")
                wire.send("GET", f"/v2/team/app/blobs/{image.layers[0]}")
                with capture_logs() as lines:
                    assert (await wire.reply()).body == bytes(LARGE)
                    wire.send("GET", "/v2/")
                    await wire.reply()
                assert {each["client"] for each in lines if each["event"] == "request"} == {OFFICE}
            with capture_logs() as lines:
                async with await Wire.open(mirror.address, client=OTHER) as wire:
                    wire.writer.write(HEADERS[version](OFFICE))
                    assert (await wire.reader.read()).startswith(b"HTTP/1.1 400 ")
            assert [each["peer"] for each in lines] == [OTHER]
