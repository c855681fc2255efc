"""Bounds of a manifest's word: no response repeats a size that only a manifest claims."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.access import TokenAuth
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running, mirror_of
from tests.wire import get, head

CLAIMED = 56 * 2**30
DATA = b"ten bytes."
LARGE = bytes(512 * 1024)


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        yield mirror


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("claimed", [CLAIMED, 1, 0])
async def test_head_of_a_blob_says_its_true_size(
    mirror: Running, fake: FakeRegistry, data: bytes, claimed: int
) -> None:
    """The upstream's size before the blob is here, and the file's afterwards, without a request."""
    digest = fake.add_blob("library/x", data)
    path = f"/v2/library/x/blobs/{digest}"
    await _name(mirror, fake, str(digest), claimed)
    assert (await head(mirror.address, path)).header("content-length") == str(len(data))
    assert (await get(mirror.address, path)).body == data
    await mirror.landed(digest)
    asked = fake.requests(match=digest)
    assert (await head(mirror.address, path)).header("content-length") == str(len(data))
    assert fake.requests(match=digest) == asked


async def test_head_of_a_blob_that_nobody_has_is_an_error(mirror: Running, fake: FakeRegistry) -> None:
    """A manifest's word alone makes no 200; neither does it without an upstream."""
    missing = f"sha256:{'0' * 64}"
    await _name(mirror, fake, missing, CLAIMED)
    assert (await head(mirror.address, f"/v2/library/x/blobs/{missing}")).status == 404
    fake.fault(Fault(status=503), "/blobs/", times=4)
    reply = await head(mirror.address, f"/v2/docker.io/library/x/blobs/{missing}")
    assert reply.status in (404, 502)


async def test_head_of_a_blob_repeats_no_size_after_a_revocation(fake: FakeRegistry, tmp_path: Path) -> None:
    """A size that the upstream told an account is forgotten with the access to the blob."""
    login = {"username": "a", "password": "x", "private": "everybody"}
    fake.auth = TokenAuth(users={"a": "x"})
    digest = fake.add_blob("library/x", DATA)
    path = f"/v2/docker.io/library/x/blobs/{digest}"
    async with mirror_of(fake, tmp_path / "cache", upstream=login, tags={"missing": 0}) as mirror:
        assert (await head(mirror.address, path)).header("content-length") == str(len(DATA))
        asked = fake.requests(match=digest)
        assert (await head(mirror.address, path)).header("content-length") == str(len(DATA))
        assert fake.requests(match=digest) == asked
        del fake.repository("library/x").blobs[str(digest)]
        assert (await get(mirror.address, path)).status == 404
        assert (await head(mirror.address, path)).status == 404


async def _name(mirror: Running, fake: FakeRegistry, digest: str, size: int) -> None:
    """Have the mirror read a manifest that names `digest` with `size` as a layer and as the config."""
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}
    config = {**layer, "mediaType": "application/vnd.oci.image.config.v1+json"}
    media_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]}
    fake.add_manifest("library/x", json.dumps(manifest).encode(), media_type, "t")
    assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
