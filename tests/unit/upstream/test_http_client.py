"""Requests that cross hosts: redirects, signed URLs, failures told apart."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.faults import Fault, oci_error
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.fakes.tls import Authority
from tests.fakes.upstream import FakeTime, registry_at

LATEST = Tag("latest")


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (404, oci_error("MANIFEST_UNKNOWN", "manifest unknown"), Failure.NOT_FOUND),
        (404, b"<html>", Failure.NOT_FOUND),
        (401, b"", Failure.DENIED),
        (403, oci_error("DENIED", "no"), Failure.DENIED),
        (400, oci_error("NAME_INVALID", "bad name"), Failure.INVALID),
        (418, b"", Failure.INVALID),
        (204, b"", Failure.INVALID),
        (304, b"", Failure.INVALID),
        (307, b"", Failure.INVALID),
    ],
)
async def test_permanent_failures_are_not_retried(status: int, body: bytes, failure: Failure) -> None:
    """An answer that will not change is raised as its failure, at once."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.add_image("a", "latest", [])
        fake.fault(Fault(status=status, body=body))
        with pytest.raises(UpstreamError) as raised:
            await registry.get_manifest("a", LATEST)
        assert raised.value.failure is failure
        assert fake.requests(match="manifests") == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
async def test_temporary_failures_are_retried(status: int) -> None:
    """An answer that may change is retried."""
    time = FakeTime()
    async with FakeRegistry() as fake, registry_at(fake.url, time) as registry:
        image = fake.add_image("a", "latest", [])
        fake.fault(Fault(status=status), times=2)
        assert (await registry.get_manifest("a", LATEST)).digest == image.manifest
        assert fake.requests("GET") == 3
        assert len(time.slept) == 2


async def test_error_message() -> None:
    """A message names upstream, host, port and status, and quotes the upstream's reason."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        with pytest.raises(UpstreamError) as raised:
            await registry.get_manifest("nowhere", LATEST)
        reason = "NAME_UNKNOWN: repository name not known to registry"
        assert str(raised.value) == f"docker.io: 127.0.0.1:{URL(fake.url).port} answered 404: {reason}"


async def test_error_answer_that_breaks() -> None:
    """An error answer that breaks while its reason is read still counts by its status."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.fault(Fault(status=404, body=b"x" * 100, cut_at=10))
        with pytest.raises(UpstreamError) as raised:
            await registry.get_manifest("a", LATEST)
        assert raised.value.failure is Failure.NOT_FOUND


async def test_error_answer_without_end() -> None:
    """The reason in an error answer is read up to a limit only."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.fault(Fault(status=404, body=b"x" * 1_000_000))
        with pytest.raises(UpstreamError) as raised:
            await registry.get_manifest("a", LATEST)
        assert raised.value.failure is Failure.NOT_FOUND


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_a_blob(status: int) -> None:
    """Blobs are followed to the CDN by every kind of redirect, the signed URL kept to the byte."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"blob")
        fake.cdn, fake.redirect_status = True, status
        async with registry.open_blob("a", digest, 1) as body:
            assert [piece async for piece in body.chunks()] == [b"lob"]
        assert fake.cdn_log[0].query == "signature=1%2Bx%2F"
        assert fake.cdn_log[0].headers["Range"] == "bytes=1-"


async def test_redirect_with_an_expired_signature_is_renewed() -> None:
    """The registry is asked for a new signed URL, once, if the CDN refuses one."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"blob")
        fake.cdn = True
        fake.fault(Fault(status=403, cdn=True))
        async with registry.open_blob("a", digest) as body:
            assert [piece async for piece in body.chunks()] == [b"blob"]
        assert (fake.requests("GET"), fake.cdn_requests("GET")) == (2, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_redirect_to_a_store_that_refuses(status: int) -> None:
    """A store's refusal after the registry's grant is a SERVER_ERROR, neither DENIED nor NOT_FOUND."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
        digest = fake.add_blob("a", b"blob")
        fake.cdn, fake.signature_uses, fake.signature_status = True, 0, status
        with pytest.raises(UpstreamError) as raised:
            async with registry.open_blob("a", digest):
                pass
        assert raised.value.failure is Failure.SERVER_ERROR


async def test_redirect_without_signature_is_not_renewed() -> None:
    """A redirect without a query is no signed URL: a 404 behind it is a 404, asked for once."""

    async def missing(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=404)

    async with FakeRegistry() as fake, Site(missing) as site, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"blob")
        fake.location = f"{site.url}/v2/other/blobs/{digest}"
        with pytest.raises(UpstreamError) as raised:
            async with registry.open_blob("a", digest):
                pass
        assert raised.value.failure is Failure.NOT_FOUND
        assert len(site.log) == 1


@pytest.mark.parametrize(
    ("location", "words"),
    [("ftp://x/y", "not an http"), ("/v2/a/tags/list", "circle"), ("http://[::1", "not a URL")],
)
async def test_redirect_that_is_refused(location: str, words: str) -> None:
    """A redirect that must not be followed is INVALID, and the request is not repeated."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.fault(Fault(status=302, headers={"Location": location}))
        with pytest.raises(UpstreamError, match=words) as raised:
            await registry.tags("a", "")
        assert raised.value.failure is Failure.INVALID
        assert len(fake.log) == 1


async def test_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    """An upstream over https cannot redirect to plain http."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake, FakeRegistry() as plain:
        digest = fake.add_blob("a", b"blob")
        fake.location = f"{plain.url}/v2/a/blobs/{digest}?sig=geheim"
        async with registry_at(fake.url, ca_file=authority.ca_file) as registry:
            with pytest.raises(UpstreamError, match="leaves https") as raised:
                await registry.head_blob("a", digest)
        assert raised.value.failure is Failure.INVALID
        assert "geheim" not in str(raised.value)
        assert plain.log == []


async def test_redirect_keeps_the_connection() -> None:
    """The registry's connection is reused after a redirect: its short body is read."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"blob")
        fake.cdn = True
        for _ in range(3):
            await registry.head_blob("a", digest)
        assert len({seen.peer for seen in fake.log}) == 1


async def test_upstream_url_with_a_path() -> None:
    """An upstream may be below a path: /v2/ comes after it."""

    async def prefixed(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(body=b'{"tags":[]}')

    async with Site(prefixed) as site, registry_at(f"{site.url}/artifactory/api/docker/") as registry:
        await registry.tags("a", "n=1")
        assert (site.log[0].path, site.log[0].query) == ("/artifactory/api/docker/v2/a/tags/list", "n=1")
