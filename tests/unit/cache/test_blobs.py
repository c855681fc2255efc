"""Blobs: one fill for all clients, and links (invariants 2 and 5)."""

import asyncio

from mirror.oci.digest import Digest
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, LARGE_DATA, Running
from tests.wire import get, head

DATA = b"some layer"
BIG = LARGE_DATA


def path(repository: str, digest: Digest) -> str:
    return f"/v2/{repository}/blobs/{digest}"


async def test_blob_fill_is_shared_by_fifty_clients(hub: FakeRegistry, mirror: Running) -> None:
    """Each client on a cold blob gets all of it, and the upstream is asked once."""
    digest = hub.add_blob("library/x", BIG)
    gate = hub.hold(digest, after=1)
    asking = [asyncio.ensure_future(get(mirror.address, path("library/x", digest))) for _ in range(50)]
    await gate.reached.wait()
    gate.release()
    assert all(reply.body == BIG for reply in await asyncio.gather(*asking))
    assert (hub.requests("GET", digest), hub.requests("HEAD", digest)) == (1, 0)
    assert await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}') == len(BIG)
    joined = await mirror.metric('registry_mirror_requests_total{kind="blob",outcome="join"}')
    assert joined == 49


async def test_blob_is_not_served_without_a_link(hub: FakeRegistry, mirror: Running) -> None:
    """A blob cached through one repository is not served to another that does not have it."""
    digest = hub.add_blob("library/private", DATA)
    hub.add_blob("library/other", b"something else")
    assert (await get(mirror.address, path("library/private", digest))).body == DATA
    await mirror.landed(digest)
    for method in (get, head):
        reply = await method(mirror.address, path("library/other", digest))
        assert reply.status == 404
    assert (hub.requests("GET", f"library/private/blobs/{digest}"), hub.requests("GET", digest)) == (1, 2)


async def test_blob_link_of_another_repository_costs_a_head(hub: FakeRegistry, mirror: Running) -> None:
    """The upstream confirms the link; no byte is fetched again, and the next request is a hit."""
    digest = hub.add_blob("library/x", DATA)
    hub.add_blob("library/y", DATA)
    await get(mirror.address, path("library/x", digest))
    await mirror.landed(digest)
    for _ in range(2):
        assert (await get(mirror.address, path("library/y", digest))).body == DATA
    assert (hub.requests("GET", digest), hub.requests("HEAD", digest)) == (1, 1)


async def test_blob_link_is_confirmed_by_each_upstream(
    hub: FakeRegistry, quay: FakeRegistry, mirror: Running
) -> None:
    """quay.io need not have the blobs of docker.io; a blob that both have is downloaded once."""
    common, ours = hub.add_blob("library/x", DATA), hub.add_blob("library/x", b"ours")
    quay.add_blob("library/x", DATA)
    for digest in (common, ours):
        await get(mirror.address, path("library/x", digest))
        await mirror.landed(digest)
    assert (await get(mirror.address, path("quay.io/library/x", common))).body == DATA
    assert (await get(mirror.address, path("quay.io/library/x", ours))).status == 404
    assert (quay.requests("GET", common), quay.requests("HEAD", common)) == (0, 1)


async def test_blob_fill_is_joined_from_another_repository_with_a_link(
    hub: FakeRegistry, mirror: Running
) -> None:
    """A HEAD for the other repository, and then the same growing file, in mid-fill too."""
    digest = hub.add_blob("library/x", BIG)
    hub.add_blob("library/y", BIG)
    hub.add_blob("library/z", b"not that one")
    gate = hub.hold(digest, after=LARGE // 2)
    first = asyncio.ensure_future(get(mirror.address, path("library/x", digest)))
    await gate.reached.wait()
    assert (await get(mirror.address, path("library/z", digest))).status == 404
    second = asyncio.ensure_future(get(mirror.address, path("library/y", digest)))
    gate.release()
    assert (await first).body == (await second).body == BIG
    asked = [hub.requests("GET", f"library/{name}/blobs/{digest}") for name in "xyz"]
    assert asked == [1, 0, 1]  # of z, a GET has to confirm the 404 of the HEAD


async def test_blob_fill_refused_for_one_repository_is_retried_by_another(
    hub: FakeRegistry, mirror: Running
) -> None:
    """A fill that fails because of its repository does not fail for another repository's client."""
    digest = hub.add_blob("library/y", DATA)
    hub.add_blob("library/x", b"not that one")
    gate = hub.hold(f"library/x/blobs/{digest}", after=-1)
    first = asyncio.ensure_future(get(mirror.address, path("library/x", digest)))
    await gate.reached.wait()
    second = asyncio.ensure_future(get(mirror.address, path("library/y", digest)))
    while hub.requests("HEAD", digest) == 0:
        await get(mirror.address, "/v2/")
    gate.release()
    assert (await first).status == 404
    assert (await second).body == DATA


async def test_blob_head_never_downloads(hub: FakeRegistry, mirror: Running) -> None:
    """The size comes from the upstream's HEAD once, then from the link."""
    digest = hub.add_blob("library/x", BIG)
    for _ in range(2):
        reply = await head(mirror.address, path("library/x", digest))
        assert (reply.status, reply.header("content-length")) == (200, str(len(BIG)))
        assert reply.header("docker-content-digest") == str(digest)
        assert reply.header("accept-ranges") == "bytes"
    assert (hub.requests("GET"), hub.requests("HEAD", digest)) == (0, 1)


async def test_blob_links_from_a_manifest(hub: FakeRegistry, mirror: Running) -> None:
    """Layers of a manifest that was pulled need no confirmation, and their HEAD no request at all."""
    image = hub.add_image("library/x", "t", [DATA])
    hub.add_blob("library/y", DATA)
    await get(mirror.address, path("library/y", image.layers[0]))
    await mirror.landed(image.layers[0])
    await get(mirror.address, "/v2/library/x/manifests/t")
    asked = len(hub.log)
    assert (await head(mirror.address, path("library/x", image.layers[0]))).status == 200
    assert (await get(mirror.address, path("library/x", image.layers[0]))).body == DATA
    assert len(hub.log) == asked


async def test_blob_link_is_not_made_for_a_foreign_layer(hub: FakeRegistry, mirror: Running) -> None:
    """A descriptor with `urls` need not be in the repository, and proves no link."""
    secret = hub.add_blob("library/private", DATA)
    await get(mirror.address, path("library/private", secret))
    await mirror.landed(secret)
    layer = {"mediaType": "x", "digest": str(secret), "size": len(DATA), "urls": ["https://elsewhere.test/"]}
    data = f'{{"schemaVersion":2,"layers":[{str(layer).replace(chr(39), chr(34))}]}}'.encode()
    hub.add_manifest("library/mine", data, tag="t")
    assert (await get(mirror.address, "/v2/library/mine/manifests/t")).status == 200
    assert (await get(mirror.address, path("library/mine", secret))).status == 404


async def test_blob_whose_file_vanished_is_fetched_again(hub: FakeRegistry, mirror: Running) -> None:
    """A damaged cache folder causes misses, not errors."""
    digest = hub.add_blob("library/x", DATA)
    await get(mirror.address, path("library/x", digest))
    await mirror.landed(digest)

    def remove() -> None:
        for each in (mirror.config.cache.dir / "blobs" / "sha256").rglob("*.*"):
            each.unlink()

    await asyncio.to_thread(remove)
    assert (await get(mirror.address, path("library/x", digest))).body == DATA
    assert hub.requests("GET", digest) == 2


async def test_blob_head_without_a_size(hub: FakeRegistry, mirror: Running) -> None:
    """A GET is asked for the length that a HEAD does not tell; if neither tells, none is made up."""
    digest = hub.add_blob("library/x", DATA)
    hub.fault(Fault(chunked=True), digest, "HEAD", times=2)
    hub.fault(Fault(chunked=True, no_ranges=True), digest, "GET", times=2)
    reply = await head(mirror.address, path("docker.io/library/x", digest))
    assert (reply.status, "content-length" in reply.headers) == (200, False)
    reply = await head(mirror.address, path("docker.io/library/x", digest))
    assert (reply.status, reply.header("content-length")) == (200, str(len(DATA)))
