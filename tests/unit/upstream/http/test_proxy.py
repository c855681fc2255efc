"""Proxies from the environment."""

import pytest
from aiohttp import web
from yarl import URL

from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.proxy import Proxies
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.fakes.upstream import registry_at

ALL = {"http": "http://proxy:3128", "https": "http://secure:3128"}


def test_proxy_by_scheme() -> None:
    """Each scheme has its proxy; ALL_PROXY is for schemes without one."""
    assert Proxies(ALL).choose(URL("https://a.test/")) == URL("http://secure:3128")
    assert Proxies(ALL).choose(URL("http://a.test/")) == URL("http://proxy:3128")
    assert Proxies({"all": "one:1"}).choose(URL("http://a.test/")) == URL("http://one:1")
    assert Proxies({}).choose(URL("http://a.test/")) is None


def test_proxy_of_another_protocol_is_ignored() -> None:
    """A SOCKS proxy, which aiohttp does not support, counts as not set."""
    proxies = Proxies({"all": "socks5://proxy:1080", "http": "proxy:3128", "no": "x"})
    assert proxies.choose(URL("https://a.test/")) is None
    assert proxies.hosts() == ["proxy"]


def test_proxy_secrets_are_its_passwords() -> None:
    """Plain, decoded, and as they are sent; NO_PROXY has none."""
    proxies = Proxies({"http": "http://me:ge%2Fheim@proxy:1", "https": "proxy:1", "no": "http://me:x@y"})
    assert proxies.secrets() == ["ge/heim", "bWU6Z2UvaGVpbQ=="]


async def test_proxy_password_that_is_echoed_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about a page of the proxy itself has neither form."""

    async def refuse(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        login = request.headers["Proxy-Authorization"].partition(" ")[2]
        return web.Response(status=502, text=f"wrong geheim or {login}")

    async with Site(refuse) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:geheim@"))
        async with registry_at("http://r.test", attempts=1) as registry:
            with pytest.raises(UpstreamError, match=r"wrong \*\*\* or \*\*\*"):
                await registry.get_manifest("org/a", Tag("t"))


@pytest.mark.parametrize(
    ("entry", "url", "bypassed"),
    [
        ("*", "http://a.test", True),
        ("a.test", "http://a.test", True),
        ("a.test", "http://sub.a.test", True),
        (".a.test", "http://sub.a.test", True),
        ("*.a.test", "http://sub.a.test", True),
        ("a.test", "http://nota.test", False),
        ("a.test:5000", "http://a.test:5000", True),
        ("a.test:5000", "http://a.test", False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://a.test", False),
        ("127.0.0.1", "http://127.0.0.1:5000", True),
        ("::1", "http://[::1]:5000", True),
        ("[::1]:5000", "http://[::1]:5000", True),
        ("fd00::/8", "http://[fd00::1]", True),
        (" , b.test , a.test", "http://A.test", True),
        ("", "http://a.test", False),
    ],
)
def test_no_proxy_entries(entry: str, url: str, bypassed: bool) -> None:
    """NO_PROXY takes domains, ports, addresses and networks, as curl and Go read it."""
    assert (Proxies({**ALL, "no": entry}).choose(URL(url)) is None) is bypassed


def test_proxy_password_is_not_in_repr() -> None:
    """The password of a proxy is not shown."""
    assert "geheim" not in repr(Proxies({"http": "http://user:geheim@proxy"}))


async def test_proxy_gets_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go to HTTP_PROXY, with its password, also for a host that only the proxy can resolve."""

    async def proxy(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(body=b'{"name":"a","tags":["x"]}', headers={"Content-Type": "application/json"})

    async with Site(proxy) as site:
        monkeypatch.setenv("http_proxy", site.url.replace("//", "//user:geheim@"))
        monkeypatch.setenv("no_proxy", "")
        async with registry_at("http://registry.invalid:5000") as registry:
            assert (await registry.tags("a", "")).data == b'{"name":"a","tags":["x"]}'
        assert site.log[0].headers["Host"] == "registry.invalid:5000"
        assert site.log[0].headers["Proxy-Authorization"].startswith("Basic ")


async def test_no_proxy_connects_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY with the upstream in it: the proxy gets no request."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.add_image("a", "latest", [])
        assert b"latest" in (await registry.tags("a", "")).data


async def test_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that does not tunnel to an https upstream is named in the message."""

    async def proxy(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=403)

    async with Site(proxy) as site:
        # By name: a proxy may well be in a private network, whatever the upstream is.
        monkeypatch.setenv("https_proxy", site.url.replace("127.0.0.1", "localhost"))
        monkeypatch.setenv("no_proxy", "")
        async with registry_at("https://registry.invalid", attempts=1) as registry:
            with pytest.raises(UpstreamError, match="proxy refused with status 403") as raised:
                await registry.tags("a", "")
        assert raised.value.failure is Failure.UNREACHABLE
        assert site.log[0].method == "CONNECT"
