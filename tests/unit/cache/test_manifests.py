"""Manifests by digest: fetched once, byte-identical, with the upstream's own type."""

import asyncio

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.fakes.content import image_index
from tests.fakes.faults import Fault, flipped
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import Running
from tests.wire import get, head


def path(repository: str, digest: Digest) -> str:
    return f"/v2/{repository}/manifests/{digest}"


@pytest.mark.parametrize(
    "media_type", [OCI_MANIFEST, OCI_INDEX, DOCKER_LIST, DOCKER_MANIFEST, "application/x"]
)
async def test_manifest_bytes_and_type_are_the_upstreams(
    hub: FakeRegistry, mirror: Running, media_type: str
) -> None:
    """Odd white space and unknown types pass unchanged (invariant 9)."""
    data = b'{ "schemaVersion" : 2,\n\t"x" : "\xc3\xa9" }\n'
    digest = hub.add_manifest("library/x", data, media_type)
    for _ in range(2):
        reply = await get(mirror.address, path("x", digest))
        assert (reply.body, reply.header("content-type")) == (data, media_type)
    assert hub.requests("GET", digest) == 1


async def test_manifest_fetch_is_shared_by_many_clients(hub: FakeRegistry, mirror: Running) -> None:
    """Clients that arrive during the fetch share its answer."""
    image = hub.add_image("library/x", None, [b"a"])
    gate = hub.hold(image.manifest, after=-1)
    asking = [asyncio.ensure_future(get(mirror.address, path("x", image.manifest))) for _ in range(20)]
    await gate.reached.wait()
    gate.release()
    assert all(reply.body == image.manifest_data for reply in await asyncio.gather(*asking))
    assert hub.requests("GET", image.manifest) == 1


async def test_manifest_link_of_another_repository_costs_a_head(
    hub: FakeRegistry, quay: FakeRegistry, mirror: Running
) -> None:
    """The same manifest elsewhere is confirmed, not downloaded; without confirmation it is not served."""
    image = hub.add_image("library/x", None, [b"a"])
    quay.add_manifest("org/y", image.manifest_data)
    quay.add_manifest("org/z", b"{}")
    await get(mirror.address, path("x", image.manifest))
    for _ in range(2):
        assert (await get(mirror.address, path("quay.io/org/y", image.manifest))).status == 200
    assert (await get(mirror.address, path("quay.io/org/z", image.manifest))).status == 404
    assert (quay.requests("GET", "org/y"), quay.requests("HEAD", "org/y")) == (0, 1)


async def test_manifest_fetch_is_shared_by_two_repositories(
    hub: FakeRegistry, quay: FakeRegistry, mirror: Running
) -> None:
    """The second request waits for the bytes of the first, and confirms its own link."""
    image = hub.add_image("library/x", None, [b"a"])
    quay.add_manifest("org/y", image.manifest_data)
    gate = hub.hold(image.manifest, after=-1)
    first = asyncio.ensure_future(get(mirror.address, path("x", image.manifest)))
    await gate.reached.wait()
    second = asyncio.ensure_future(get(mirror.address, path("quay.io/org/y", image.manifest)))
    await get(mirror.address, "/v2/")
    gate.release()
    assert (await first).body == (await second).body == image.manifest_data
    assert quay.requests("GET") == 0


async def test_manifest_fetch_is_not_held_up_by_repositories_without_it(
    hub: FakeRegistry, quay: FakeRegistry, mirror: Running
) -> None:
    """Many clients ask at once, each of its own repository, and only the last repository has it."""
    image = hub.add_image("library/x", "t", [])
    gate = quay.hold(image.manifest, after=-1)
    paths = [f"/v2/quay.io/org/{number}/manifests/{image.manifest}" for number in range(5)]
    asking = [asyncio.ensure_future(get(mirror.address, paths[0]))]
    await gate.reached.wait()
    for path in (*paths[1:], f"/v2/docker.io/library/x/manifests/{image.manifest}"):
        asking.append(asyncio.ensure_future(get(mirror.address, path)))
        # Requests are taken in order: once this one is answered, the one before it has joined.
        await get(mirror.address, "/v2/")
    gate.release()
    assert [reply.status for reply in await asyncio.gather(*asking)] == [404] * 5 + [200]


async def test_manifest_head_asks_once(hub: FakeRegistry, mirror: Running) -> None:
    """A HEAD is one GET upstream, whose size is right, and the next one is answered from the cache."""
    image = hub.add_image("library/x", None, [b"a"])
    for _ in range(2):
        reply = await head(mirror.address, path("x", image.manifest))
        assert reply.header("content-length") == str(len(image.manifest_data))
        assert reply.header("content-type") == OCI_MANIFEST
    assert (hub.requests("GET"), hub.requests("HEAD")) == (1, 0)


async def test_manifest_head_is_a_head_where_pulls_count(hub: FakeRegistry, mirror: Running) -> None:
    """An upstream that reports a rate limit is asked with a HEAD, which costs no pull."""
    hub.limit = RateLimit(limit=100)
    known, asked = (hub.add_image("library/x", tag, [b"a"]) for tag in ("known", "asked"))
    await get(mirror.address, path("x", known.manifest))
    for _ in range(2):
        reply = await head(mirror.address, path("x", asked.manifest))
        assert reply.header("content-length") == str(len(asked.manifest_data))
    assert (hub.requests("GET", asked.manifest), hub.requests("HEAD")) == (0, 1)


async def test_manifest_head_without_a_length_becomes_a_get(hub: FakeRegistry, mirror: Running) -> None:
    """Only a GET has the length then, and the length is right."""
    image = hub.add_image("library/x", None, [b"a"])
    hub.fault(Fault(chunked=True), image.manifest, "HEAD")
    reply = await head(mirror.address, path("x", image.manifest))
    assert reply.header("content-length") == str(len(image.manifest_data))


async def test_manifest_with_wrong_bytes_is_never_served(hub: FakeRegistry, mirror: Running) -> None:
    """Bytes that do not hash to the digest are an error, with nothing kept; the next request is right."""
    image = hub.add_image("library/x", None, [b"a"])
    hub.fault(Fault(data=flipped(image.manifest_data, 5)), image.manifest, "GET")
    reply = await get(mirror.address, path("docker.io/library/x", image.manifest))
    assert reply.status == 502
    assert (await get(mirror.address, path("x", image.manifest))).body == image.manifest_data


async def test_manifest_links_from_an_index(hub: FakeRegistry, mirror: Running) -> None:
    """A platform's manifest that is here through another repository needs no confirmation."""
    image = hub.add_image("library/x", None, [b"a"])
    hub.add_manifest("library/multi", image_index([image.manifest_data]), OCI_INDEX, "t")
    await get(mirror.address, path("x", image.manifest))
    await get(mirror.address, "/v2/multi/manifests/t")
    asked = len(hub.log)
    reply = await get(mirror.address, path("multi", image.manifest))
    assert (reply.body, reply.header("content-type")) == (image.manifest_data, OCI_MANIFEST)
    assert (await head(mirror.address, path("multi", image.manifest))).status == 200
    assert len(hub.log) == asked


async def test_manifest_that_does_not_parse_links_nothing(hub: FakeRegistry, mirror: Running) -> None:
    """The manifest is served as it is; digests that it claims to name are not served."""
    data = b'{"schemaVersion":2,"layers":"all of them"}'
    digest = hub.add_manifest("library/x", data)
    assert (await get(mirror.address, path("x", digest))).body == data


async def test_manifest_request_for_a_blob_is_not_found(hub: FakeRegistry, mirror: Running) -> None:
    """The link of a blob does not let it pass as a manifest."""
    digest = hub.add_blob("library/x", b"{}")
    await get(mirror.address, f"/v2/x/blobs/{digest}")
    await mirror.landed(digest)
    assert (await get(mirror.address, path("x", digest))).status == 404
