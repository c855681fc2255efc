"""Connections, TLS, timeouts, and translation of exceptions."""

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from mirror.metrics.metrics import Metrics
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.transport import Transport
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.fakes.upstream import registry_at, settings

SIGNED = URL("https://registry.test/x?sig=geheim")


def test_translated_exceptions_name_upstream_and_place() -> None:
    """The message names the upstream and the place, without the URL that the exception may quote."""
    transport = Transport(settings("https://registry.test"), Metrics())
    with pytest.raises(UpstreamError) as raised, transport.translated(SIGNED):
        raise aiohttp.InvalidURL(SIGNED)
    assert raised.value.message == "docker.io: https://registry.test:443: not a URL that can be asked"
    assert raised.value.failure is Failure.INVALID
    assert raised.value.__suppress_context__


def test_private_upstreams_before_the_first_connection() -> None:
    """Redirects to private addresses are for upstreams that are private, http, or configured so."""
    assert Transport(settings("http://registry.test"), Metrics()).private
    assert Transport(settings("https://10.0.0.1"), Metrics()).private
    assert Transport(settings("https://registry.test", private_redirects=True), Metrics()).private
    assert not Transport(settings("https://registry.test"), Metrics()).private


async def test_request_headers() -> None:
    """Requests name the mirror, ask for no encoding, and keep no cookie."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.add_image("a", "latest", [])
        fake.fault(Fault(headers={"Set-Cookie": "session=1"}))
        await registry.tags("a", "")
        await registry.tags("a", "")
        for seen in fake.log:
            assert seen.headers["User-Agent"].startswith("registry-mirror/")
            assert seen.headers["Accept-Encoding"] == "identity"
            assert "Cookie" not in seen.headers


async def test_netrc_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Passwords in a netrc file of the mirror's user are not sent to upstreams (invariant 6)."""
    netrc = tmp_path / "netrc"
    await asyncio.to_thread(netrc.write_text, "machine 127.0.0.1 login me password geheim\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.add_image("a", "latest", [])
        await registry.tags("a", "")
        assert "Authorization" not in fake.log[0].headers


async def test_refused_connection_is_unreachable() -> None:
    """A refused connection is UNREACHABLE, counted under that name, and retried as configured."""
    metrics = Metrics()
    async with registry_at("http://127.0.0.1:1", metrics=metrics, attempts=2) as registry:
        with pytest.raises(UpstreamError) as raised:
            await registry.tags("a", "")
    assert raised.value.failure is Failure.UNREACHABLE
    assert raised.value.message == "docker.io: http://127.0.0.1:1: Connection refused"
    body, _ = await asyncio.to_thread(metrics.render)
    assert b'upstream_requests_total{status="unreachable",upstream="docker.io"} 2.0' in body


async def test_silence_times_out() -> None:
    """An upstream that accepts and then sends nothing ends in a timeout after read_timeout."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1, read_timeout=0.05) as registry:
        fake.hold("/v2/", after=-1)
        with pytest.raises(UpstreamError) as raised:
            await registry.tags("a", "")
        assert raised.value.failure is Failure.TIMEOUT


@pytest.mark.parametrize(
    "fault",
    [
        Fault(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000, drip=0.02),
        Fault(drip=0.02, status=200, body=b'{"tags":[]}' + b" " * 1000),
    ],
)
async def test_drip_times_out(fault: Fault) -> None:
    """An upstream whose every byte comes in time times out too if the whole does not."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1, read_timeout=0.1) as registry:
        fake.fault(fault)
        with pytest.raises(UpstreamError) as raised:
            await registry.tags("a", "")
        assert raised.value.failure is Failure.TIMEOUT


async def test_slow_line_does_not_time_out() -> None:
    """A body at 1 KiB a second or more is waited for, beyond read_timeout."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1, read_timeout=0.5) as registry:
        fake.piece = 1000
        fake.fault(Fault(drip=0.15, status=200, body=b'{"tags":[]}' + b" " * 3989))
        assert len((await registry.tags("a", "")).data) == 4000


@pytest.mark.parametrize("chunked", [False, True])
async def test_bytes_before_a_break_are_returned(chunked: bool) -> None:
    """A body that breaks before it is read: all bytes that had come are returned, then the error."""
    data = random.Random(1).randbytes(2_000_000)
    async with FakeRegistry() as fake:
        digest = fake.add_blob("a", data)
        fake.fault(Fault(cut_at=300_000, chunked=chunked))
        transport = Transport(settings(fake.url), metrics := Metrics())
        response = await transport.send("GET", URL(f"{fake.url}/v2/a/blobs/{digest}"), {})
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.wait_eof()  # for the break
        assert transport.direct_reader(response) is None
        came = bytearray()

        async def read() -> None:
            async for piece in transport.chunks(response):
                came.extend(piece)

        with pytest.raises(UpstreamError, match="broke in the middle"):
            await read()
        response.close()
        assert came == data[:300_000]
        body, _ = await asyncio.to_thread(metrics.render)
        assert b'upstream_bytes_total{upstream="docker.io"} 300000.0' in body
        await transport.close()


async def test_garbage_is_not_http() -> None:
    """An answer that is not HTTP is INVALID, and not retried."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.fault(Fault(raw=b"220 mail.test ESMTP\r\n"))
        with pytest.raises(UpstreamError, match="not HTTP") as raised:
            await registry.tags("a", "")
        assert raised.value.failure is Failure.INVALID
        assert len(fake.log) == 1


async def test_long_headers_are_read() -> None:
    """A header line of 60 KiB, as signed Locations and security policies can be, is no error."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.add_image("a", "latest", [])
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-Long: " + b"x" * 60_000
        fake.fault(Fault(raw=head + b'\r\n\r\n{"tags":[]}'))
        assert (await registry.tags("a", "")).data == b'{"tags":[]}'


async def test_ca_file_of_a_private_registry(tmp_path: Path) -> None:
    """A private registry is trusted with its CA configured; without, the failure names the certificate."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake:
        fake.add_image("a", "latest", [])
        async with registry_at(fake.url, ca_file=authority.ca_file) as registry:
            assert b"latest" in (await registry.tags("a", "")).data
        async with registry_at(fake.url, attempts=1) as registry:
            with pytest.raises(UpstreamError, match=r"certificate of 127\.0\.0\.1 is not trusted") as raised:
                await registry.tags("a", "")
            assert raised.value.failure is Failure.UNREACHABLE


async def test_ca_file_without_certificates(tmp_path: Path) -> None:
    """A ca_file without certificates is named in the error of the first request."""
    empty = tmp_path / "ca.pem"
    await asyncio.to_thread(empty.write_text, "nothing\n")
    async with registry_at("https://127.0.0.1:1", ca_file=empty) as registry:
        with pytest.raises(UpstreamError, match=r"ca\.pem") as raised:
            await registry.tags("a", "")
        assert raised.value.failure is Failure.INVALID


async def test_close_before_use_and_twice() -> None:
    """Closing is harmless at any time."""
    transport = Transport(settings("http://127.0.0.1:1"), Metrics())
    await transport.close()
    await transport.close()


async def test_first_requests_share_a_session() -> None:
    """Requests that start together open one session."""
    async with FakeRegistry() as fake, registry_at(fake.url, max_connections=1) as registry:
        fake.add_image("a", "latest", [])
        pages = await asyncio.gather(*(registry.tags("a", "") for _ in range(3)))
        assert len(pages) == 3
