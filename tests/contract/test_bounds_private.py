"""Private addresses: open to redirects as long as the upstream is proven private, and no longer."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from yarl import URL

from mirror.metrics.metrics import Metrics
from mirror.upstream.errors import UpstreamError
from mirror.upstream.http.proxy import Proxies
from mirror.upstream.http.transport import Transport
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.fakes.upstream import settings
from tests.unit.upstream.http.test_resolver import Names


class Tunnel:
    """A proxy that connects to 127.0.0.1, at the port that a client names."""

    async def __aenter__(self) -> "Tunnel":
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        port = int(head.split()[1].rpartition(b":")[2])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """DNS, for aiohttp: addresses by name."""
    known: dict[str, list[str]] = {}

    def resolver() -> AbstractResolver:
        return Names(**known)

    monkeypatch.setattr(aiohttp, "ThreadedResolver", resolver)
    return known


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def transport_to(fake: FakeRegistry, host: str, authority: Authority | None) -> Transport:
    port = URL(fake.url).port
    ca = {"ca_file": authority.ca_file} if authority is not None else {}
    return Transport(settings(f"https://{host}:{port}", **ca), Metrics())


async def ask(transport: Transport, *, proven: bool = False) -> None:
    response = await transport.send("GET", URL(f"{transport.url}/v2/"), {}, proven=proven)
    response.close()


async def test_upstream_at_a_private_address_is_private_once_tls_has_proven_it(
    names: dict[str, list[str]], authority: Authority
) -> None:
    """A certificate that is valid at a private address proves the upstream: its stores may be private too."""
    names["hub.test"] = ["127.0.0.1"]
    tls = await asyncio.to_thread(authority.server_context)
    async with FakeRegistry(tls) as fake:
        transport = await asyncio.to_thread(transport_to, fake, "hub.test", authority)
        assert not transport.private
        await ask(transport)
        assert transport.private
        await transport.close()


@pytest.mark.parametrize("host", ["hub.test", "other.test"])
async def test_wrong_dns_answer_opens_nothing(
    names: dict[str, list[str]], authority: Authority, host: str
) -> None:
    """A name server that answers with a private address proves nothing: no certificate fits there."""
    names[host] = ["127.0.0.1"]
    trusted = authority if host == "other.test" else None
    async with FakeRegistry(await asyncio.to_thread(authority.server_context)) as fake:
        transport = await asyncio.to_thread(transport_to, fake, host, trusted)
        with pytest.raises(UpstreamError, match="not trusted"):
            await ask(transport)
        assert not transport.private
        await transport.close()


async def test_private_is_forgotten_with_the_next_answer(
    names: dict[str, list[str]], authority: Authority
) -> None:
    """The address of the last answer counts, not that of any before: here the next one comes by a proxy."""
    names["hub.test"] = ["127.0.0.1"]
    tls = await asyncio.to_thread(authority.server_context)
    async with FakeRegistry(tls) as fake, Tunnel() as proxy:
        transport = await asyncio.to_thread(transport_to, fake, "hub.test", authority)
        await ask(transport)
        assert transport.private
        transport._proxies = Proxies({"https": proxy.url})
        for proven in (False, True):
            await ask(transport, proven=proven)
            assert not transport.private
        await transport.close()
