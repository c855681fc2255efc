"""Labels and claims about content: the digest decides, and a label is only named when the bytes are wrong."""

import asyncio
import gzip
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.fakes.content import CONFIG_TYPE, LAYER_TYPE, descriptor
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, LARGE_DATA, configured, mirror_of, serving
from tests.wire import Wire, get, head

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pauses")]

X = "library/x"
TINY = b"ten bytes."
MIDDLE = bytes(range(256)) * 2000
BLOB = LARGE_DATA
BLOBS = {"tiny": TINY, "middle": MIDDLE, "large": BLOB}
CLAIMS: dict[str, Callable[[int], object]] = {
    "one more": lambda size: size + 1,
    "one less": lambda size: size - 1,
    "half": lambda size: size // 2,
    "nothing": lambda size: 0,
    "one": lambda size: 1,
    "small": lambda size: 1000,
    "large": lambda size: 5 * LARGE,
    "huge": lambda size: 2**62,
    "negative": lambda size: -1,
    "beyond": lambda size: 2**70,
    "text": str,
    "fraction": lambda size: size + 0.5,
}
LENGTHS = {
    "length": Fault(),
    "no length": Fault(chunked=True),
}
LABELS = {
    **{
        f"Content-Encoding {each}": {"Content-Encoding": each}
        for each in (
            "aws-chunked",
            "x-gzip",
            "gzip",
            "UTF-8",
            "identity",
            "deflate",
            "br",
            "none",
            "a, b",
            "",
        )
    },
    **{
        f"Content-Type {each}": {"Content-Type": each}
        for each in ("text/plain; charset=latin-9", "image/png", "application/json", "x", "multipart/mixed")
    },
    "wrong digest": {"Docker-Content-Digest": str(Digest.of(b"other"))},
    "no digest": {"Docker-Content-Digest": ""},
    "nonsense digest": {"Docker-Content-Digest": "md5:1"},
    "wrong ETag": {"ETag": '"other"'},
    "ETag": {"ETag": "W/nonsense"},
    "Content-MD5": {"Content-MD5": "AAAA"},
    "Content-Range": {"Content-Range": "bytes 5-9/10"},
    "Content-Disposition": {"Content-Disposition": "attachment"},
    "Last-Modified": {"Last-Modified": "never"},
}

PARALLEL = {"parallel": 4, "parallel_above": 1024 * 1024}
RANDOM = random.Random(1).randbytes(700_000)
LAYERS = {
    "middle": gzip.compress(RANDOM, 1, mtime=0),  # as layers are, so that its first bytes tell nothing
    "large": gzip.compress(bytes(range(256)) * (LARGE // 256) + RANDOM * 7, 1, mtime=0),
    "tar": RANDOM,
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "packed": lambda data: gzip.compress(data, 1),
    "members": lambda data: gzip.compress(data[:1000], 1) + gzip.compress(data[1000:], 1),
}


def path_of(digest: Digest) -> str:
    return f"/v2/docker.io/{X}/blobs/{digest}"


def claim(fake: FakeRegistry, data: bytes, size: object) -> Digest:
    """Add a manifest that says `size` of a layer."""
    digest = fake.add_blob(X, data)
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG_TYPE, b"{}"),
        "layers": [{"mediaType": LAYER_TYPE, "digest": str(digest), "size": size}],
    }
    fake.add_blob(X, b"{}")
    fake.add_manifest(X, json.dumps(document).encode(), tag="t")
    return digest


async def partials(folder: Path) -> list[str]:
    """Return the names of files that a fill has left."""
    return await asyncio.to_thread(os.listdir, folder / "cache/partial")


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("data", BLOBS)
@pytest.mark.parametrize("claimed", CLAIMS)
async def test_size_that_a_manifest_claims(
    fake: FakeRegistry, tmp_path: Path, claimed: str, data: str, length: str, prefetch: int
) -> None:
    """The blob is pulled and kept; skopeo, podman and dockerd pull it directly as well."""
    content, fake.piece = BLOBS[data], CHUNK
    digest = claim(fake, content, CLAIMS[claimed](len(content)))
    async with mirror_of(fake, tmp_path / "cache", fill={"prefetch": prefetch}) as mirror:
        fake.fault(LENGTHS[length], digest, "GET", times=99)
        assert (await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")).status == 200
        reply = await get(mirror.address, path_of(digest))
        assert (reply.status, reply.body == content) == (200, True)
        await mirror.landed(digest)
        received = await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')
        assert received < 2.3 * len(content) + 5000
        asked = len(fake.log)
        assert (await get(mirror.address, path_of(digest))).body == content
        assert (await head(mirror.address, path_of(digest))).header("content-length") == str(len(content))
        if claimed != "huge" and data != "tiny":
            assert len(fake.log) == asked


@pytest.mark.parametrize("data", BLOBS)
async def test_blob_without_any_size(fake: FakeRegistry, tmp_path: Path, data: str) -> None:
    """Neither GET nor HEAD nor a manifest tells the size: only the end does."""
    content, fake.piece = BLOBS[data], CHUNK
    digest = fake.add_blob(X, content)
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        fake.fault(Fault(chunked=True, no_ranges=True), digest, times=99)
        first = await head(mirror.address, path_of(digest))
        assert (first.status, "content-length" in first.headers) == (200, False)
        assert (await get(mirror.address, path_of(digest))).body == content
        await mirror.landed(digest)
        asked = len(fake.log)
        assert (await get(mirror.address, path_of(digest))).body == content
        assert len(fake.log) == asked


async def test_blob_without_any_size_that_breaks(fake: FakeRegistry, tmp_path: Path) -> None:
    """A broken download is read past what is here; wrong bytes are an error."""
    digest, fake.piece = fake.add_blob(X, BLOB), CHUNK
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        fake.fault(Fault(chunked=True, no_ranges=True), digest, "GET")
        fake.fault(Fault(chunked=True, no_ranges=True), digest, "HEAD", times=9)
        fake.fault(Fault(chunked=True, no_ranges=True, cut_at=LARGE // 2), digest, "GET")
        fake.fault(Fault(chunked=True, no_ranges=True), digest, "GET", times=9)
        assert (await get(mirror.address, path_of(digest))).body == BLOB
        other = Digest.of(b"other")
        fake.repository(X).blobs[str(other)] = BLOB
        fake.fault(Fault(chunked=True, no_ranges=True), other, times=99)
        reply = await get(mirror.address, path_of(other))
        assert (reply.status, b"bytes that are not" in reply.body) == (502, True)


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
async def test_blob_without_any_size_over_the_quota(
    fake: FakeRegistry, tmp_path: Path, *, wrong: bool
) -> None:
    """Passed through in chunks, the end once it is verified; nothing is kept of it."""
    digest, fake.piece = fake.add_blob(X, BLOB), CHUNK
    if wrong:
        fake.repository(X).blobs[str(digest)] = BLOB[:-1] + b"x"
    config = configured(tmp_path / "cache", {"docker.io": fake.url})
    cache = config.cache.model_copy(update={"max_size": Amount(1024 * 1024)})
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        fake.fault(Fault(chunked=True, no_ranges=True), digest, times=99)
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path_of(digest), ["Connection: close"])
            answer = await wire.head()
            body = await wire.reader.read()
        assert answer.header("transfer-encoding") == "chunked"
        assert body.endswith(b"\r\n0\r\n\r\n") is not wrong
        assert len(body) > (LARGE if not wrong else 0)


@pytest.mark.parametrize("data", BLOBS)
@pytest.mark.parametrize("label", LABELS)
async def test_label_on_right_bytes(fake: FakeRegistry, tmp_path: Path, label: str, data: str) -> None:
    """The bytes are those of the digest, whatever they are called: named by a manifest, and not."""
    content, fake.piece = BLOBS[data], CHUNK
    digest = claim(fake, content, len(content))
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        fake.fault(Fault(headers=LABELS[label]), digest, times=99)
        assert (await get(mirror.address, path_of(digest))).body == content
    async with mirror_of(fake, tmp_path / "other") as mirror:
        assert (await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")).status == 200
        assert (await get(mirror.address, path_of(digest))).body == content


@pytest.mark.parametrize("label", LABELS)
async def test_label_on_a_manifest(fake: FakeRegistry, tmp_path: Path, label: str) -> None:
    """Manifests by digest and by tag; where the type is no manifest's, the manifest itself tells."""
    image = fake.add_image(X, "t", [TINY])
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        headers = LABELS[label]
        if headers.get("Content-Type", "").startswith("multipart"):
            headers = {"Content-Type": "application/octet-stream; charset=x"}
        fake.fault(Fault(headers=headers), "manifests", "GET", times=99)
        for reference in ("t", image.manifest):
            reply = await get(mirror.address, f"/v2/docker.io/{X}/manifests/{reference}")
            assert (reply.status, reply.body) == (200, image.manifest_data)


@pytest.mark.parametrize("data", BLOBS)
async def test_label_is_named_where_the_bytes_are_wrong(
    fake: FakeRegistry, tmp_path: Path, data: str
) -> None:
    content = BLOBS[data]
    digest = claim(fake, content, len(content))
    async with mirror_of(fake, tmp_path / "cache", fill={"verify_first": True}) as mirror:
        assert (await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")).status == 200
        wrong = Fault(data=content[:-1] + b"!", headers={"Content-Encoding": "aws-chunked"})
        fake.fault(wrong, digest, "GET", times=99)
        reply = await get(mirror.address, path_of(digest))
        assert (reply.status, b"aws-chunked" in reply.body) == (502, True)


async def test_content_that_is_really_compressed(fake: FakeRegistry, tmp_path: Path) -> None:
    """A config or manifest that is compressed though identity was asked for: decoded, as Go's clients do."""
    image = fake.add_image(X, "t", [TINY])
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        for match, data in (("manifests", image.manifest_data), (str(image.config), image.config_data)):
            packed = Fault(data=gzip.compress(data), headers={"Content-Encoding": "gzip"})
            fake.fault(packed, match, "GET", times=9)
        reply = await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")
        assert reply.body == image.manifest_data
        assert (await get(mirror.address, path_of(image.config))).body == image.config_data


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize(
    ("packing", "encoding"), [("packed", "gzip"), ("packed", "x-gzip"), ("members", "GZIP")]
)
@pytest.mark.parametrize("layer", LAYERS)
async def test_layer_that_a_proxy_compresses(
    fake: FakeRegistry, tmp_path: Path, layer: str, packing: str, encoding: str, length: str, *, named: bool
) -> None:
    """The layer is decoded, and kept as its digest says; no client gets a compressed byte."""
    content, fake.piece = LAYERS[layer], CHUNK
    digest = claim(fake, content, len(content))
    packed = replace(LENGTHS[length], data=PACKINGS[packing](content), headers={"Content-Encoding": encoding})
    async with mirror_of(fake, tmp_path / "cache", fill=PARALLEL) as mirror:
        if named:
            assert (await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")).status == 200
        fake.fault(packed, digest, times=99)
        for _ in range(2):
            reply = await get(mirror.address, path_of(digest))
            assert (reply.status, reply.body == content) == (200, True)
            await mirror.landed(digest)
        received = await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')
        assert received < 2.8 * len(content) + 5000
        asked = len(fake.log)
        assert (await get(mirror.address, path_of(digest))).body == content
        assert (len(fake.log), await partials(tmp_path)) == (asked, [])


async def test_layer_that_a_proxy_compresses_wrongly(fake: FakeRegistry, tmp_path: Path) -> None:
    """Bytes that are wrong, decoded or not, are an error that names the label, and leave no file."""
    content = LAYERS["middle"]
    digest = claim(fake, content, len(content))
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        assert (await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")).status == 200
        wrong = gzip.compress(content[:-1] + b"!", 1)
        for data in (wrong, wrong[:-9], wrong + b"surplus", gzip.compress(b"")):
            fake.fault(Fault(data=data, headers={"Content-Encoding": "gzip"}, chunked=True), digest, times=99)
            reply = await get(mirror.address, path_of(digest))
            assert (reply.status, b"'gzip'" in reply.body) == (502, True), reply.body
            fake.forgive()
        assert await partials(tmp_path) == []
        assert (await get(mirror.address, path_of(digest))).body == content


@pytest.mark.parametrize("name", ["manifest", "tiny", "middle", "large"])
@pytest.mark.parametrize("claimed", [0, 5, 10**9])
async def test_length_beside_chunks(fake: FakeRegistry, tmp_path: Path, name: str, claimed: int) -> None:
    """An answer with both Content-Length and chunks: the chunks decide, as for clients written in Go."""
    content = BLOBS.get(name, BLOB)
    digest = claim(fake, content, len(content))
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        found = fake.repository(X).manifest("t")
        assert found is not None
        body = found[1].data if name == "manifest" else content
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {claimed}\r\nTransfer-Encoding: chunked\r\n"
        if name == "manifest":
            head += f"Content-Type: {OCI_MANIFEST}\r\n"
        raw = f"{head}\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        fake.fault(Fault(raw=raw), "manifests" if name == "manifest" else digest, "GET", times=99)
        path = f"/v2/docker.io/{X}/manifests/t" if name == "manifest" else path_of(digest)
        reply = await get(mirror.address, path)
        assert (reply.status, reply.body == body) == (200, True)
