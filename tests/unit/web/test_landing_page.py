"""The page at `/`: for browsers only, with the visitor's address, and harmless."""

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from mirror import __version__
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.running import Running, configured, serving
from tests.wire import Reply, Wire, get, head

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def page(mirror: Running, *headers: str) -> str:
    reply = await get(mirror.address, "/", BROWSER, *headers)
    assert reply.status == 200
    return reply.body.decode()


async def test_landing_page_says_how_to_point_clients_at_the_mirror(mirror: Running) -> None:
    """The snippets have the Host header's address; the page names version, upstreams and probes."""
    text = await page(mirror, "Host: mirror.lan:5000")
    assert __version__ in text
    for part in (
        "docker pull mirror.lan:5000/docker.io/library/busybox",
        '"registry-mirrors": ["http://mirror.lan:5000"]',
        '"insecure-registries": ["mirror.lan:5000"]',
        '[host."http://mirror.lan:5000"]',
        'location = "mirror.lan:5000"\ninsecure = true',
        "<code>quay.io</code>",
        'href="/healthz"',
        'href="/readyz"',
        'href="/metrics"',
        'href="/setup/docker.sh"',
    ):
        assert part in text


async def test_landing_page_snippet_for_docker_is_json(mirror: Running) -> None:
    """The snippet that a visitor copies into daemon.json is valid."""
    text = await page(mirror)
    (snippet,) = re.findall(r"<pre><code>(\{.*?\})</code></pre>", text, re.DOTALL)
    assert json.loads(snippet) == {
        "registry-mirrors": ["http://mirror.test"],
        "insecure-registries": ["mirror.test"],
    }


@pytest.mark.parametrize("host", ['"><script>alert(1)</script>', "a b", "x/y", "x:y", "x" + "&amp;", ""])
async def test_landing_page_ignores_a_host_that_is_none(mirror: Running, host: str) -> None:
    """A Host header that is no address is not shown: the page has the address of the socket instead."""
    text = await page(mirror, f"Host: {host}")
    assert f'"registry-mirrors": ["http://{mirror.address}"]' in text
    assert "<script" not in text


async def test_landing_page_allows_its_own_style_and_nothing_else(mirror: Running) -> None:
    """No script, no external resource, no sniffing; the policy's hash is that of the style sheet."""
    reply = await get(mirror.address, "/", BROWSER)
    policy, text = reply.header("content-security-policy"), reply.body.decode()
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}';" in policy
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("content-type") == "text/html; charset=utf-8"
    assert "<script" not in text
    assert " style=" not in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


async def test_landing_page_head_has_no_body(mirror: Running) -> None:
    """HEAD gets the headers of GET."""
    reply = await head(mirror.address, "/", BROWSER)
    assert (reply.status, reply.header("content-type")) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("/", "Accept: */*", 404),
        ("/", "Accept: application/json", 404),
        ("/", "X: no accept", 404),
        ("/v2/", BROWSER, 200),
        ("/v2/library/x/manifests/none", BROWSER, 404),
        ("/index.html", BROWSER, 404),
    ],
)
async def test_landing_page_is_for_browsers_at_the_root_only(
    mirror: Running, path: str, header: str, status: int
) -> None:
    """Registry clients, and other paths, get the same JSON as before."""
    reply = await get(mirror.address, path, header)
    assert (reply.status, reply.header("content-type")) == (status, "application/json")


async def test_landing_page_does_not_take_other_methods(mirror: Running) -> None:
    """A POST of a browser is refused like any other."""
    async with await Wire.open(mirror.address) as wire:
        wire.send("POST", "/", [BROWSER, "Content-Length: 0"])
        assert (await wire.reply()).status == 405


async def test_landing_page_over_tls_says_https(hub: FakeRegistry, tmp_path: Path) -> None:
    """The snippets say https with TLS, without insecure settings, and the page tells where a CA goes."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    server = {"tls_certificate": authority.server_file, "tls_key": authority.server_file}
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, server=server)
    async with serving(config) as mirror:
        context = await asyncio.to_thread(authority.client_context)
        async with await Wire.open(mirror.address, context) as wire:
            wire.send("GET", "/", [BROWSER])
            reply: Reply = await wire.reply()
    text = reply.body.decode()
    assert '"registry-mirrors": ["https://mirror.test"]' in text
    assert "insecure" not in text
    assert "/etc/docker/certs.d/mirror.test/ca.crt" in text


async def test_landing_page_of_another_default_has_no_docker_mirror(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """Docker asks a mirror for docker.io without naming it: that works only with docker.io as the default."""
    async with serving(configured(tmp_path, {"quay.io": hub.url, "docker.io": hub.url})) as mirror:
        text = await page(mirror)
    assert "registry-mirrors" not in text
    assert "docker pull mirror.test/quay.io/IMAGE" in text
