"""Names that must not resolve to private addresses."""

import asyncio
import socket

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mirror.metrics.metrics import Metrics
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.resolver import GuardedResolver, PrivateAddress
from mirror.upstream.http.transport import Transport
from tests.fakes.site import Seen, Site
from tests.fakes.upstream import settings


class Names(AbstractResolver):
    """DNS in memory: addresses by name."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = addresses
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses[host]
        ]

    async def close(self) -> None:
        self.closed = True


async def addresses(resolver: GuardedResolver, host: str) -> list[str]:
    return [result["host"] for result in await resolver.resolve(host, 443)]


async def test_resolver_drops_private_addresses_of_redirected_names() -> None:
    """A name from a redirect loses its private addresses, and is refused if it has no others."""
    names = Names(hub=["1.1.1.1"], cdn=["8.8.8.8", "10.0.0.1"], rebound=["10.0.0.1"])
    resolver = GuardedResolver(names, "hub")
    assert await addresses(resolver, "hub") == ["1.1.1.1"]
    assert await addresses(resolver, "cdn") == ["8.8.8.8"]
    with pytest.raises(PrivateAddress, match="rebound"):
        await resolver.resolve("rebound")


async def test_resolver_allows_private_configured_names() -> None:
    """The upstream and its configured realms are the operator's choice."""
    resolver = GuardedResolver(Names(hub=["1.1.1.1"], auth=["10.0.0.2"]), "hub", ["auth"])
    assert await addresses(resolver, "auth") == ["10.0.0.2"]


async def test_resolver_allows_private_stores_while_the_upstream_is_private() -> None:
    """Other names may be private as long as the upstream is, and not because its own name resolved so."""
    private = False
    names = Names(hub=["10.0.0.1"], store=["10.0.0.2"])
    resolver = GuardedResolver(names, "hub", private=lambda: private)
    assert await addresses(resolver, "hub") == ["10.0.0.1"]
    with pytest.raises(PrivateAddress, match="store"):
        await resolver.resolve("store")
    private = True
    assert await addresses(resolver, "store") == ["10.0.0.2"]
    private = False
    with pytest.raises(PrivateAddress, match="store"):
        await resolver.resolve("store")


async def test_resolver_refusal_is_invalid() -> None:
    """A connection to a redirected name with only private addresses is refused as INVALID."""

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response()

    transport = Transport(settings("https://hub.test"), Metrics())
    resolver = GuardedResolver(Names(cdn=["127.0.0.1"]), "hub")
    connector = aiohttp.TCPConnector(resolver=resolver)
    async with Site(answer) as site, aiohttp.ClientSession(connector=connector) as session:
        url = URL(site.url).with_host("cdn")
        with pytest.raises(UpstreamError, match="private_redirects") as raised, transport.translated(url):
            await session.get(url)
        assert raised.value.failure is Failure.INVALID
        assert site.log == []


async def test_resolver_times_out() -> None:
    """A name server that does not answer ends in a timeout."""

    class Silent(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            await asyncio.Event().wait()
            return []

    with pytest.raises(TimeoutError):
        await GuardedResolver(Silent(), "hub", timeout=0.001).resolve("hub")


async def test_resolver_close_closes_the_inner_resolver() -> None:
    """Closing reaches the resolver that does the work."""
    names = Names()
    await GuardedResolver(names, "hub").close()
    assert names.closed
