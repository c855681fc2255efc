"""Text of images and upstreams that becomes a header: through one grammar, or not at all."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.web.responses import content_type
from tests.fakes.site import Seen, Site
from tests.running import configured, serving
from tests.wire import Wire, get

ODD = ["a/b\r\nX-Injected: 1", "a/b\x00", "a/\x1b[31m", "a/b\ud800", "ä/ö", "a b/c", "a/" + "b" * 5000]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", ODD)
async def test_media_type_of_a_manifest_is_answered_as_one(kind: str, method: str, tmp_path: Path) -> None:
    """A mediaType that is none: the manifest is answered by its shape, again and again."""
    body = json.dumps({"schemaVersion": 2, "mediaType": kind, "layers": []}).encode()

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    async with (
        Site(answer) as site,
        serving(configured(tmp_path, {"u.test": site.url})) as mirror,
        await Wire.open(mirror.address) as wire,
    ):
        for _ in range(4):
            wire.send(method, "/v2/u.test/a/manifests/t")
            reply = await wire.reply(method)
            assert (reply.status, reply.header("Content-Type")) == (200, OCI_MANIFEST)
            assert method == "HEAD" or reply.body == body


async def test_content_type_that_is_not_text(tmp_path: Path) -> None:
    """A Content-Type with bytes that are no UTF-8: answered by shape, also when the head is a known one."""
    body = b'{"schemaVersion": 2, "layers": []}'

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x\xff\r\nContent-Length: %d\r\n\r\n" % len(body)
            + (body if request.method == "GET" else b"")
        )
        request.transport.close()
        return web.Response()

    async with (
        Site(answer) as site,
        serving(configured(tmp_path, {"u.test": site.url})) as mirror,
        await Wire.open(mirror.address) as wire,
    ):
        for _ in range(4):
            wire.send("GET", "/v2/u.test/a/manifests/t")
            reply = await wire.reply()
            assert (reply.status, reply.header("Content-Type")) == (200, OCI_MANIFEST)


@pytest.mark.parametrize("query", ["last=a b", "last=\x1b[m", "last=\xff"])
async def test_link_of_a_list(query: str, tmp_path: Path) -> None:
    """A link to the next page with characters that no URL has is passed on escaped."""

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nContent-Type: application/json\r\n"
            + b'Link: </x?%s>; rel="next"\r\n\r\n{"tags":[]}' % query.encode("latin-1")
        )
        request.transport.close()
        return web.Response()

    async with (
        Site(answer) as site,
        serving(configured(tmp_path, {"u.test": site.url})) as mirror,
        await Wire.open(mirror.address) as wire,
    ):
        wire.send("GET", "/v2/u.test/a/tags/list")
        reply = await wire.reply()
        assert reply.status in (200, 502)  # a parser may refuse a control character
        assert reply.status == 502 or reply.header("Link").isascii()
        assert " b" not in reply.headers.get("link", "")


def test_stored_media_type_is_checked_again() -> None:
    """A type that an earlier version stored unchecked does not become a header."""
    assert content_type(OCI_MANIFEST) == OCI_MANIFEST
    assert content_type("a/b\r\nX: y") == "application/octet-stream"


@pytest.mark.parametrize("name", [b"a b.tar", b"\xc3\xa9.tar", b"\xe9.tar", b"a%20b%2Fc"])
async def test_location_with_characters_that_no_url_has(name: bytes, tmp_path: Path) -> None:
    """A raw space or byte beyond ASCII is requested escaped, and escapes as they are: the blob is served."""
    blob = b"blob"
    asked: list[str] = []

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        asked.append(request.raw_path)
        if seen.path.startswith("/store"):
            return web.Response(body=blob)
        assert request.transport is not None
        request.transport.write(
            b"HTTP/1.1 307 Moved\r\nContent-Length: 0\r\nLocation: /store/%s?sig=%s\r\n\r\n" % (name, name)
        )
        request.transport.close()
        return web.Response()

    digest = Digest.of(blob)
    async with Site(answer) as site, serving(configured(tmp_path, {"u.test": site.url})) as mirror:
        reply = await get(mirror.address, f"/v2/u.test/a/blobs/{digest}")
        assert (reply.status, reply.body) == (200, blob)
    escaped = quote(name, safe="%")
    assert asked[-1] == f"/store/{escaped}?sig={escaped}"
