"""The request of `healthcheck`: which probe, and what counts as healthy."""

import asyncio
import ssl
from pathlib import Path

import pytest

from mirror.config.server import ServerSettings
from mirror.doctor.health_check import Unhealthy, check, probe_url
from tests.fakes.tls import Authority

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
DRAINING = b'HTTP/1.1 503 Unavailable\r\nContent-Length: 16\r\n\r\n{"ready": false}'
MOVED = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"


async def answered(data: bytes, tls: ssl.SSLContext | None = None, certificate: Path | None = None) -> str:
    """Return what `check` makes of a server that sends `data` to each request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/healthz"
        return await asyncio.to_thread(check, url, 20.0, certificate)


async def test_healthcheck_of_a_probe_that_answers() -> None:
    assert await answered(OK) == "ok"


@pytest.mark.parametrize(
    ("data", "message"),
    [(DRAINING, '503: {"ready": false}'), (MOVED, "answered 302"), (b"SSH-2.0\r\n", "does not answer")],
)
async def test_healthcheck_of_anything_else_is_unhealthy(data: bytes, message: str) -> None:
    with pytest.raises(Unhealthy, match=message):
        await answered(data)


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "ftp://127.0.0.1/", "http:///healthz"])
def test_healthcheck_of_no_url_says_what_one_is(url: str) -> None:
    with pytest.raises(Unhealthy, match="give http://HOST:PORT"):
        check(url, 1.0)


def test_healthcheck_of_a_closed_port_says_so() -> None:
    with pytest.raises(Unhealthy, match="Connection refused"):
        check("http://127.0.0.1:1/healthz", 1.0)


async def test_healthcheck_takes_the_certificate_of_the_configuration_only(tmp_path: Path) -> None:
    """One for another name and of a private CA is the mirror's own; that of another program is not."""

    def prepare() -> tuple[Path, Path, Path]:
        authority = Authority(tmp_path)
        (tmp_path / "none").write_text("-----BEGIN CERTIFICATE-----\n")
        return *authority.issue(tmp_path, "mirror.lan"), authority.issue(tmp_path, "other.lan")[0]

    certificate, key, other = await asyncio.to_thread(prepare)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(tls.load_cert_chain, certificate, key)
    assert await answered(OK, tls, certificate) == "ok"
    with pytest.raises(Unhealthy, match="another certificate"):
        await answered(OK, tls, other)
    with pytest.raises(Unhealthy, match="can be read"):
        await answered(OK, tls, tmp_path / "none")


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:5000/readyz"),
        ({"listen": [":8080"]}, "http://127.0.0.1:8080/readyz"),
        ({"listen": ["[::1]:8080"]}, "http://[::1]:8080/readyz"),
        ({"operations_listen": ["10.0.0.1:9000"]}, "http://10.0.0.1:9000/readyz"),
        ({"tls_certificate": "/a", "tls_key": "/b"}, "https://127.0.0.1:5000/readyz"),
    ],
)
def test_healthcheck_asks_where_the_configuration_serves(settings: dict[str, object], url: str) -> None:
    assert probe_url(ServerSettings(**settings), "/readyz") == url  # type: ignore[arg-type]
