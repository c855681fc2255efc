"""Client certificates: shown to the upstream and its realms, and to no other server (invariant 6)."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.rights.grant import Grant
from tests.fakes.access import TokenAuth
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Handler, Seen, Site
from tests.fakes.tls import Authority
from tests.fakes.upstream import registry_at

LATEST = Tag("latest")


@pytest.fixture
async def authority(tmp_path: Path) -> Authority:
    return await asyncio.to_thread(Authority, tmp_path)


async def values_of(authority: Authority, folder: Path, name: str = "me") -> dict[str, Any]:
    certificate, key = await asyncio.to_thread(authority.issue, folder, name)
    return {"ca_file": authority.ca_file, "client_cert": certificate, "client_key": key, "attempts": 1}


async def asking(authority: Authority, mode: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> ssl.SSLContext:
    return await asyncio.to_thread(authority.asking_context, mode)


def noting(names: list[str], handler: Handler) -> Handler:
    """Note the common name of the certificate with each request, "" for none."""

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        shown = request.get_extra_info("peercert") or {}
        found = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
        names.append(found[0] if found else "")
        return await handler(request, seen)

    return answer


async def test_upstream_that_wants_a_certificate(authority: Authority, tmp_path: Path) -> None:
    """A registry that refuses every other client is served from; without the options it is not."""
    values = await values_of(authority, tmp_path)
    async with FakeRegistry(tls=await asking(authority, ssl.CERT_REQUIRED)) as fake:
        image = fake.add_image("org/a", "latest", [b"layer"])
        async with registry_at(fake.url, **values) as registry:
            assert (await registry.get_manifest("org/a", LATEST)).data == image.manifest_data
            async with registry.open_blob("org/a", image.layers[0]) as body:
                assert b"".join([part async for part in body.chunks()]) == b"layer"
        async with registry_at(fake.url, ca_file=authority.ca_file, attempts=1) as registry:
            with pytest.raises(UpstreamError) as raised:
                await registry.get_manifest("org/a", LATEST)
            assert raised.value.failure is Failure.UNREACHABLE


async def test_target_of_a_redirect_sees_no_certificate(authority: Authority, tmp_path: Path) -> None:
    """Neither the store that a blob is redirected to, nor the upstream when it is sent back from there."""
    values = await values_of(authority, tmp_path)
    seen: dict[str, list[str]] = {"own": [], "store": []}
    async with FakeRegistry(tls=await asking(authority)) as fake:
        fake._site._handler = noting(seen["own"], fake._site._handler)
        digest = fake.add_blob("org/a", b"layer")

        async def back(request: web.BaseRequest, _: Seen) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{fake.url}/v2/org/b/blobs/{digest}"})

        fake.add_blob("org/b", b"layer")
        async with Site(noting(seen["store"], back), await asking(authority)) as store:
            fake.location = f"{store.url}/x?signed=1"
            fake.repository("org/b")
            async with registry_at(fake.url, **values) as registry:
                with pytest.raises(UpstreamError):  # org/b is redirected too: a circle
                    await registry.get_blob("org/a", digest, 100)
    assert seen == {"own": ["me", ""], "store": [""]}


@pytest.mark.parametrize("trusted", [True, False])
async def test_realm_sees_the_certificate_if_it_is_trusted(
    authority: Authority, tmp_path: Path, trusted: bool
) -> None:
    """An origin of `realms` may have the password, and so the certificate; any other has neither."""
    names: list[str] = []
    values = await values_of(authority, tmp_path)
    async with FakeRegistry(tls=await asking(authority)) as fake:
        fake.add_image("org/a", "latest", [])
        fake.auth = auth = TokenAuth()
        async with Site(noting(names, auth.token), await asking(authority)) as site:
            auth.realm = f"{site.url}/token"
            realms = (site.url,) if trusted else ()
            async with registry_at(fake.url, realms=realms, **values) as registry:
                await registry.get_manifest("org/a", LATEST)
    assert names == ["me" if trusted else ""]


async def test_certificate_stays_behind_at_a_redirect_of_a_realm(
    authority: Authority, tmp_path: Path
) -> None:
    """The token server's redirect leaves the trusted origins."""
    names: list[str] = []
    values = await values_of(authority, tmp_path)
    async with FakeRegistry(tls=await asking(authority)) as fake:
        fake.add_image("org/a", "latest", [])
        fake.auth = auth = TokenAuth()
        async with Site(noting(names, auth.token), await asking(authority)) as real:

            async def moved(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
                return web.Response(status=302, headers={"Location": f"{real.url}/?{seen.query}"})

            async with Site(noting(names, moved), await asking(authority)) as realm:
                auth.realm = f"{realm.url}/token"
                async with registry_at(fake.url, realms=(realm.url,), **values) as registry:
                    await registry.get_manifest("org/a", LATEST)
    assert names == ["me", ""]


async def test_certificate_that_changed_on_disk_is_named(authority: Authority, tmp_path: Path) -> None:
    """Files that were right at the start and are not at the first request: an error that names them."""
    values = await values_of(authority, tmp_path)
    async with registry_at("https://127.0.0.1:1", **values) as registry:
        await asyncio.to_thread(values["client_key"].write_text, "nothing\n")
        with pytest.raises(UpstreamError, match=r"client_cert .*me\.crt") as raised:
            await registry.tags("a", "")
        assert raised.value.failure is Failure.INVALID


async def test_upstream_with_a_certificate_has_nothing_for_nobody(
    authority: Authority, tmp_path: Path
) -> None:
    """Nobody is asked whether a repository is public: each connection shows the certificate."""
    values = await values_of(authority, tmp_path)
    async with FakeRegistry(tls=await asking(authority)) as fake:
        fake.add_image("org/a", "latest", [b"layer"])
        async with registry_at(fake.url, **values) as registry:
            assert await registry.grant("org/a", "latest", None) is Grant.REFUSED
        assert fake.log == []
        async with registry_at(fake.url, ca_file=authority.ca_file) as registry:
            assert await registry.grant("org/a", "latest", None) is Grant.GRANTED
