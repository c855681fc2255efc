"""Request sequences of real clients, replayed on the wire: one client per test."""

import asyncio
import email
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.fakes.content import FakeImage, image_index, image_manifest, some_layers
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, LARGE_DATA, Running, mirror_of
from tests.wire import Reply, Wire, get, head

TYPES = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX)
SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
ONE_LINE = f"Accept: {', '.join(TYPES)}, */*"
CONTAINERD_ENCODING = "Accept-Encoding: zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"
BIG = LARGE_DATA


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        yield mirror


class Multiarch:
    """An index `x:t` of two images, as Docker Hub has it."""

    def __init__(self, fake: FakeRegistry) -> None:
        self.images = [fake.add_image("library/x", None, some_layers(3, 1000 + n)) for n in range(2)]
        self.data = image_index([each.manifest_data for each in self.images])
        self.digest = fake.add_manifest("library/x", self.data, OCI_INDEX, "t")


def is_manifest(reply: Reply, data: bytes, media_type: str) -> bool:
    """Check all that clients check on a manifest."""
    digest = str(Digest.of(data))
    return (
        (reply.status, reply.body) == (200, data)
        and reply.header("content-type") == media_type
        and reply.header("content-length") == str(len(data))
        and reply.header("docker-content-digest") == digest
        and reply.header("etag") == f'"{digest}"'
        and reply.header("docker-distribution-api-version") == "registry/2.0"
        and "content-encoding" not in reply.headers
    )


def is_head_of(reply: Reply, data: bytes, media_type: str) -> bool:
    return (
        reply.status == 200
        and reply.header("content-type") == media_type
        and reply.header("content-length") == str(len(data))
        and reply.header("docker-content-digest") == str(Digest.of(data))
    )


def error_code(reply: Reply) -> str:
    assert reply.header("content-type") == "application/json"
    code: str = json.loads(reply.body)["errors"][0]["code"]
    return code


@pytest.mark.parametrize("order", list(itertools.permutations(TYPES))[::7])
async def test_dockerd_pulls_with_one_accept_line_per_type(
    fake: FakeRegistry, mirror: Running, order: tuple[str, ...]
) -> None:
    """Docker's order of Accept lines is random; the answer is the same for each."""
    image = Multiarch(fake)
    child = image.images[0]
    accept = [f"Accept: {each}" for each in order]
    assert (await get(mirror.address, "/v2/")).status == 200
    assert is_head_of(await head(mirror.address, "/v2/library/x/manifests/t", *accept), image.data, OCI_INDEX)
    assert is_manifest(
        await get(mirror.address, f"/v2/library/x/manifests/{image.digest}", *accept), image.data, OCI_INDEX
    )
    path = f"/v2/library/x/manifests/{child.manifest}"
    assert is_manifest(await get(mirror.address, path, *accept), child.manifest_data, OCI_MANIFEST)
    replies = await asyncio.gather(
        *(get(mirror.address, f"/v2/library/x/blobs/{digest}") for digest in child.blobs)
    )
    assert [reply.body for reply in replies] == [child.config_data, *child.layers_data]


async def test_dockerd_resumes_a_layer_that_was_cut(fake: FakeRegistry, mirror: Running) -> None:
    """After a cut connection Docker asks for the rest with a Range, and gets it with exact numbers."""
    image = fake.add_image("library/x", "t", [BIG])
    await get(mirror.address, "/v2/library/x/manifests/t")
    path = f"/v2/library/x/blobs/{image.layers[0]}"
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path)
        assert (await wire.head()).status == 200
        start = len(await wire.reader.readexactly(LARGE * 2 // 5))
    reply = await get(mirror.address, path, f"Range: bytes={start}-")
    assert (reply.status, reply.body) == (206, BIG[start:])
    assert reply.header("content-range") == f"bytes {start}-{len(BIG) - 1}/{len(BIG)}"
    assert fake.requests("GET", image.layers[0]) == 1


async def test_dockerd_20_asks_for_schema_1_too(fake: FakeRegistry, mirror: Running) -> None:
    """Types that are never served are ignored in Accept, and `Connection: close` is obeyed."""
    image = fake.add_image("library/x", "t", some_layers(1))
    accept = [f"Accept: {SCHEMA_1[0]}", "Accept: application/json"]
    async with await Wire.open(mirror.address) as wire:
        path = "/v2/library/x/manifests/t"
        wire.send("GET", path, [*accept, *(f"Accept: {each}" for each in TYPES), "Connection: close"])
        assert is_manifest(await wire.reply(), image.manifest_data, OCI_MANIFEST)
        assert await wire.reader.read() == b""


@pytest.mark.parametrize("ns", ["docker.io", "registry-1.docker.io", "index.docker.io"])
async def test_containerd_asks_with_ns_and_never_pings(fake: FakeRegistry, mirror: Running, ns: str) -> None:
    """HEAD, then GET by digest, then blobs, with `ns`, one Accept line, and encodings not to apply."""
    image = fake.add_image("library/x", "t", some_layers(2))
    reply = await head(mirror.address, f"/v2/library/x/manifests/t?ns={ns}", ONE_LINE)
    assert is_head_of(reply, image.manifest_data, OCI_MANIFEST)
    wanted = [f"Accept: {OCI_MANIFEST}, */*", CONTAINERD_ENCODING]
    reply = await get(mirror.address, f"/v2/library/x/manifests/{image.manifest}?ns={ns}", *wanted)
    assert is_manifest(reply, image.manifest_data, OCI_MANIFEST)
    for digest, data in zip(image.blobs, (image.config_data, *image.layers_data), strict=True):
        reply = await get(mirror.address, f"/v2/library/x/blobs/{digest}?ns={ns}", *wanted)
        assert reply.body == data
        assert reply.header("content-length") == str(len(data))
        assert reply.header("content-type") == "application/octet-stream"
        assert "content-encoding" not in reply.headers


async def test_containerd_asks_for_a_manifest_among_the_blobs(fake: FakeRegistry, mirror: Running) -> None:
    """`HEAD .../blobs/<manifest digest>` is answered for a cached manifest."""
    image = fake.add_image("library/x", "t", some_layers(1))
    await get(mirror.address, "/v2/library/x/manifests/t?ns=docker.io")
    reply = await head(mirror.address, f"/v2/library/x/blobs/{image.manifest}?ns=docker.io")
    assert is_head_of(reply, image.manifest_data, "application/octet-stream")


async def test_containerd_gets_404_for_an_unknown_ns(mirror: Running) -> None:
    """An unknown namespace, here with a port, is a clear 404, and nothing is dialled."""
    reply = await get(mirror.address, "/v2/org/x/manifests/t?ns=reg.example:5000", ONE_LINE)
    assert (reply.status, error_code(reply)) == (404, "NAME_UNKNOWN")
    assert b"reg.example:5000" in reply.body


async def test_containerd_fetches_a_layer_in_parallel_during_the_fill(
    fake: FakeRegistry, mirror: Running
) -> None:
    """Open-ended ranges, each closed after a chunk, get 206, with one transfer upstream."""
    image = fake.add_image("library/x", "t", [BIG])
    chunk = 10 * CHUNK
    gate = fake.hold(image.layers[0], after=CHUNK)
    path = f"/v2/library/x/blobs/{image.layers[0]}?ns=docker.io"

    async def part(start: int) -> bytes:
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path, [f"Range: bytes={start}-"])
            reply = await wire.head()
            assert reply.status == 206
            assert reply.header("content-range") == f"bytes {start}-{len(BIG) - 1}/{len(BIG)}"
            return await wire.reader.readexactly(min(chunk, len(BIG) - start))

    asking = asyncio.gather(*(part(start) for start in range(0, len(BIG), chunk)))
    await gate.reached.wait()
    gate.release()
    assert b"".join(await asking) == BIG
    assert (await get(mirror.address, path)).body == BIG
    assert fake.requests("GET", image.layers[0]) == 1


async def test_containerd_2_1_0_sends_a_range_on_manifests(fake: FakeRegistry, mirror: Running) -> None:
    """`Range: bytes=0-` on a manifest gets the whole manifest, with 200."""
    image = fake.add_image("library/x", "t", some_layers(1))
    reply = await get(
        mirror.address, f"/v2/library/x/manifests/{image.manifest}?ns=docker.io", "Range: bytes=0-"
    )
    assert is_manifest(reply, image.manifest_data, OCI_MANIFEST)


async def test_podman_gets_by_tag_and_asks_for_signatures(fake: FakeRegistry, mirror: Running) -> None:
    """Podman pings, GETs by tag, sends no Accept with blobs, and needs a real 404 for a signature."""
    image = fake.add_image("library/x", "t", some_layers(2))
    ping = await get(mirror.address, "/v2/", "Docker-Distribution-API-Version: registry/2.0")
    assert (ping.status, ping.header("docker-distribution-api-version")) == (200, "registry/2.0")
    assert "www-authenticate" not in ping.headers
    accept = [f"Accept: {each}" for each in (*TYPES, *SCHEMA_1)]
    reply = await get(mirror.address, "/v2/library/x/manifests/t", *accept, "Authorization: Basic Og==")
    assert is_manifest(reply, image.manifest_data, OCI_MANIFEST)
    assert (await get(mirror.address, f"/v2/library/x/blobs/{image.config}")).body == image.config_data
    tag = str(image.manifest).replace(":", "-")
    signature = await get(mirror.address, f"/v2/library/x/manifests/{tag}.sig", *accept)
    assert (signature.status, error_code(signature)) == (404, "MANIFEST_UNKNOWN")
    assert fake.requests("HEAD") == 0


@pytest.mark.parametrize("count", [2, 250, 1024])
async def test_podman_asks_for_many_ranges_of_a_layer(
    fake: FakeRegistry, mirror: Running, count: int
) -> None:
    """zstd:chunked gets as many parts as ranges, in order, with header lines of more than 8 KiB."""
    image = fake.add_image("library/x", "t", [BIG])
    path = f"/v2/library/x/blobs/{image.layers[0]}"
    starts = range(0, count * 4000, 4000)
    header = "Range: bytes=" + ",".join(f"{start}-{start + 99}" for start in starts)
    reply = await get(mirror.address, path, header)
    assert (reply.status, reply.complete) == (206, True)
    head = f"Content-Type: {reply.header('content-type')}\r\n\r\n".encode()
    parts = list(email.message_from_bytes(head + reply.body).walk())[1:]
    assert [part.get_payload(decode=True) for part in parts] == [BIG[start : start + 100] for start in starts]
    assert [part["Content-Range"] for part in parts] == [
        f"bytes {start}-{start + 99}/{len(BIG)}" for start in starts
    ]


async def test_podman_never_sees_416_for_several_ranges(fake: FakeRegistry, mirror: Running) -> None:
    """Podman gets the whole blob, with 200, when one of several ranges is beyond the end."""
    image = fake.add_image("library/x", "t", some_layers(1))
    reply = await get(
        mirror.address, f"/v2/library/x/blobs/{image.layers[0]}", "Range: bytes=0-1,99999999-99999999"
    )
    assert (reply.status, reply.body) == (200, image.layers_data[0])


async def test_buildkit_comes_by_prefix_with_ns(fake: FakeRegistry, mirror: Running) -> None:
    """BuildKit asks `/v2/<prefix>/...` with ns, and for four blobs at once long after the manifest."""
    image = fake.add_image("library/x", "t", some_layers(4))
    base = "/v2/docker.io/library/x"
    reply = await head(mirror.address, f"{base}/manifests/t?ns=docker.io", ONE_LINE)
    assert is_head_of(reply, image.manifest_data, OCI_MANIFEST)
    await get(mirror.address, f"{base}/manifests/{image.manifest}?ns=docker.io", ONE_LINE)
    replies = await asyncio.gather(
        *(get(mirror.address, f"{base}/blobs/{digest}?ns=docker.io") for digest in image.layers)
    )
    assert [reply.body for reply in replies] == list(image.layers_data)


async def test_crane_and_cosign_list_and_look_for_signatures(fake: FakeRegistry, mirror: Running) -> None:
    """Tags come in pages whose Link stays on the mirror, referrers as an exact OCI index, the rest is 404."""
    image = fake.add_image("library/x", "t", some_layers(1))
    for tag in ("a", "b", "c"):
        fake.repository("library/x").tags[tag] = str(image.manifest)
    fake.page_size = 2
    assert (await get(mirror.address, "/v2/")).body == b"{}"
    listed, path = [], "/v2/library/x/tags/list?n=1000"
    while path:
        page = await get(mirror.address, path)
        listed += json.loads(page.body)["tags"]
        link = page.headers.get("link", "")
        path = link.partition(">")[0].removeprefix("<")
        assert path == "" or path.startswith("/v2/library/x/tags/list?")
    assert listed == ["a", "b", "c", "t"]
    accept = f"Accept: {','.join(TYPES)}"
    referrers = await get(mirror.address, f"/v2/library/x/referrers/{image.manifest}", f"Accept: {OCI_INDEX}")
    assert (referrers.status, referrers.header("content-type")) == (200, OCI_INDEX)
    assert json.loads(referrers.body) == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    for suffix in ("", ".sig", ".att", ".sbom"):
        tag = str(image.manifest).replace(":", "-") + suffix
        assert (await get(mirror.address, f"/v2/library/x/manifests/{tag}", accept)).status == 404


async def test_regclient_resumes_one_past_the_end(fake: FakeRegistry, mirror: Running) -> None:
    """`bytes=n-size` names a byte that is not there; the range is clamped."""
    image = fake.add_image("library/x", "t", some_layers(1))
    data = image.layers_data[0]
    reply = await get(
        mirror.address,
        f"/v2/library/x/blobs/{image.layers[0]}?ns=registry-1.docker.io",
        f"Range: bytes=100-{len(data)}",
    )
    assert (reply.status, reply.body) == (206, data[100:])
    assert reply.header("content-range") == f"bytes 100-{len(data) - 1}/{len(data)}"


async def test_oras_pulls_a_chart(fake: FakeRegistry, mirror: Running) -> None:
    """HEAD of the tag, GET by digest with one media type, blobs with length and digest, no referrers."""
    image = fake.add_image("org/chart", "1.0", some_layers(1))
    base = "/v2/docker.io/org/chart"
    assert is_head_of(await head(mirror.address, f"{base}/manifests/1.0"), image.manifest_data, OCI_MANIFEST)
    reply = await get(mirror.address, f"{base}/manifests/{image.manifest}", f"Accept: {OCI_MANIFEST}")
    assert is_manifest(reply, image.manifest_data, OCI_MANIFEST)
    data = image.layers_data[0]
    blob = await get(mirror.address, f"{base}/blobs/{image.layers[0]}", f"Range: bytes=10-{len(data) - 1}")
    assert (blob.status, blob.body) == (206, data[10:])
    assert blob.header("docker-content-digest") == str(image.layers[0])
    none = await get(mirror.address, f"{base}/referrers/sha256:{'0' * 64}")
    assert (none.status, json.loads(none.body)["manifests"]) == (200, [])
    assert json.loads((await get(mirror.address, f"{base}/tags/list")).body)["tags"] == ["1.0"]


async def test_docker_29_asks_for_attestations(fake: FakeRegistry, mirror: Running) -> None:
    """Docker gets the attestation manifest, none of its referrers, and a 404 for the referrers tag."""
    Multiarch(fake)
    attestation = image_manifest(b"{}", [b"{}"])
    fake.add_blob("library/x", b"{}")
    digest = fake.add_manifest("library/x", attestation)
    await head(mirror.address, "/v2/library/x/manifests/t?ns=docker.io", ONE_LINE)
    reply = await get(mirror.address, f"/v2/library/x/manifests/{digest}?ns=docker.io", ONE_LINE)
    assert is_manifest(reply, attestation, OCI_MANIFEST)
    fake.referrers_api = False
    none = await get(mirror.address, f"/v2/library/x/referrers/{digest}?ns=docker.io")
    assert (none.status, none.header("content-type")) == (200, OCI_INDEX)
    assert json.loads(none.body)["manifests"] == []
    tag = str(digest).replace(":", "-")
    assert (await get(mirror.address, f"/v2/library/x/manifests/{tag}?ns=docker.io")).status == 404


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
async def test_push_is_refused_with_advice(mirror: Running, method: str) -> None:
    """A write gets 405 UNSUPPORTED with Allow, and says what to do instead: for DELETE, `rm`."""
    async with await Wire.open(mirror.address) as wire:
        wire.send(method, "/v2/library/x/blobs/uploads/", ["Content-Length: 0"])
        reply = await wire.reply()
    assert (reply.status, error_code(reply), reply.header("allow")) == (405, "UNSUPPORTED", "GET, HEAD")
    assert b"mirror" in reply.body
    assert (b"registry-mirror rm IMAGE" in reply.body) is (method == "DELETE")


async def test_a_second_pull_does_not_touch_the_upstream(fake: FakeRegistry, mirror: Running) -> None:
    """A repeated pull comes from the cache, whichever client repeats it."""
    image = fake.add_image("library/x", "t", some_layers(3))

    async def pull(client: Running, image: FakeImage) -> list[bytes]:
        manifest = await get(client.address, "/v2/library/x/manifests/t")
        blobs = [await get(client.address, f"/v2/library/x/blobs/{digest}") for digest in image.blobs]
        return [manifest.body, *(blob.body for blob in blobs)]

    first = await pull(mirror, image)
    asked = len(fake.log)
    assert await pull(mirror, image) == first
    assert (await head(mirror.address, "/v2/library/x/manifests/t?ns=docker.io")).status == 200
    assert len(fake.log) == asked
    assert [fake.requests("GET", digest) for digest in image.blobs] == [1] * 4
