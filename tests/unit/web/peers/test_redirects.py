"""Redirects to the shared store: large blobs, by network, and never to clients that come back."""

from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from tests.fakes.access import TokenAuth
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE_DATA, Running
from tests.unit.transfer.shared.test_shared_words import NOWHERE, Site, X, pull_blobs
from tests.wire import get, head

LAYER = LARGE_DATA
ALL = ("127.0.0.0/8",)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Mirrors that share engines in memory, and send clients away for what is large for a test."""
    monkeypatch.setattr("mirror.transfer.shared.store_urls.LEAST_BYTES", 1024 * 1024)
    return Site(tmp_path, monkeypatch)


async def stored(site: Site, fake: FakeRegistry, **sections: Any) -> Digest:
    """Have a blob in the tier; return its digest."""
    image = fake.add_image("library/x", "t", [LAYER])
    async with site.mirror(fake.url, **sections) as first:
        await get(first.address, f"{X}/manifests/t")
        await pull_blobs(first, *image.layers, image.config)
    return image.layers[0]


async def redirects(mirror: Running, outcome: str) -> float:
    return await mirror.metric(f'registry_mirror_shared_redirects_total{{outcome="{outcome}"}}')


async def test_redirect_sends_a_client_to_the_store_and_answers_one_that_comes_back(
    fake: FakeRegistry, site: Site
) -> None:
    """A GET, not a HEAD, with and without a range; a client that asks again has the bytes from here."""
    digest = await stored(site, fake)
    url = f"{X}/blobs/{digest}"
    async with site.mirror(fake.url, redirect=ALL) as mirror:
        assert (await head(mirror.address, url)).status == 200
        for headers in ((), ("Range: bytes=5-9",)):
            reply = await get(mirror.address, url, *headers)
            assert (reply.status, reply.body) == (307, b"")
            assert reply.header("location") == f"http://store.invalid/{digest.encoded}?for=600"
            assert reply.header("cache-control") == "no-store"
        again = await get(mirror.address, url)
        assert (again.status, again.body) == (200, LAYER)
        assert (await get(mirror.address, url)).status == 200
        other = await get(mirror.address, url, "User-Agent: another/1.0")
        assert other.status == 307
        assert (await redirects(mirror, "sent"), await redirects(mirror, "refused")) == (3, 1)
        assert await mirror.metric('registry_mirror_requests_total{kind="blob",outcome="error"}') == 0


async def test_redirect_is_for_networks_and_large_blobs_that_the_store_has(
    fake: FakeRegistry, site: Site
) -> None:
    """Other clients, small blobs, blobs that only the upstream has, and manifests are answered here."""
    digest = await stored(site, fake)
    absent = fake.add_blob("library/x", LAYER[::-1])
    small = fake.add_blob("library/x", b"small")
    async with site.mirror(fake.url, redirect=("10.0.0.0/8",)) as mirror:
        assert (await get(mirror.address, f"{X}/blobs/{digest}")).status == 200
    async with site.mirror(fake.url, redirect=ALL) as mirror:
        for each in (absent, small):
            assert (await get(mirror.address, f"{X}/blobs/{each}")).status == 200
            await mirror.landed(each)
        assert (await get(mirror.address, f"{X}/manifests/t")).status == 200
        assert await redirects(mirror, "sent") == 0


async def test_redirect_opens_no_private_blob(fake: FakeRegistry, site: Site) -> None:
    """A mirror gives no URL for a repository whose upstream has not confirmed the blob to it."""
    fake.auth = TokenAuth(users={"me": "secret"}, private={"library/x"})
    account = {"username": "me", "password": "secret", "private": "everybody"}
    digest = await stored(site, fake, upstream=account)
    async with site.mirror(fake.url, redirect=ALL) as mirror:
        assert (await get(mirror.address, f"{X}/blobs/{digest}")).status in (401, 403, 404)
    async with site.mirror(NOWHERE, redirect=ALL, upstream=account) as mirror:
        assert (await get(mirror.address, f"{X}/blobs/{digest}")).status == 424
        other = f"/v2/docker.io/library/y/blobs/{digest}"
        assert (await get(mirror.address, other)).status == 424
        assert await redirects(mirror, "sent") == 0
