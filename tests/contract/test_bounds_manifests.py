"""Manifests that are short in bytes and name very much: served as they are, at a bounded cost."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from mirror.cache import listings
from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES, MOST_DESCRIPTORS, OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.oci.referrers import texts_by_type
from tests.fakes.site import Handler, Seen, Site
from tests.running import configured, serving
from tests.wire import get

LAYER = b"a layer"


def image(layers: int) -> bytes:
    """Return a manifest whose first layer is LAYER."""
    names = [LAYER, *(b"%d" % each for each in range(layers - 1))]
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "layers": [{"mediaType": "a/b", "digest": str(Digest.of(each)), "size": 7} for each in names],
        },
        separators=(",", ":"),
    ).encode()


def fields(values: str) -> bytes:
    """Return a manifest with a further field."""
    return f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","x":{values}}}'.encode()


# Functions, since a worker imports every test file and keeps it.
HEAVY: dict[str, Callable[[], bytes]] = {
    "descriptors": lambda: image(24_000),
    "keys": lambda: fields("{" + ",".join(f'"k{each}":1' for each in range(300_000)) + "}"),
    "same key": lambda: fields("{" + ",".join(['"k":1'] * 400_000) + "}"),
    "empty objects": lambda: fields("[" + ",".join(["{}"] * 1_000_000) + "]"),
    "annotations": lambda: fields("{" + ",".join(f'"a{each}":"{"v" * 20}"' for each in range(100_000)) + "}"),
    "depth": lambda: fields('{"a":' * 100_000 + "1" + "}" * 100_000),
}


def serves(body: bytes, kind: str) -> Handler:
    """Return an upstream with this manifest for each tag, and the layer."""

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        if "/manifests/" in seen.path:
            digest = str(Digest.of(body))
            return web.Response(body=body, headers={"Content-Type": kind, "Docker-Content-Digest": digest})
        if seen.path.endswith(str(Digest.of(LAYER))):
            return web.Response(body=LAYER)
        return web.Response(status=404)

    return answer


@pytest.mark.parametrize("kind", [OCI_MANIFEST, "application/json"])
@pytest.mark.parametrize("what", HEAVY)
async def test_heavy_manifest_is_served_as_it_is_and_not_followed(
    what: str, kind: str, tmp_path: Path
) -> None:
    """Serve the manifest byte for byte, by tag and digest; the index has its own link; layers can be had."""
    body = HEAVY[what]()
    assert len(body) <= MAX_MANIFEST_BYTES
    async with Site(serves(body, kind)) as site:
        config = configured(tmp_path, {"u.test": site.url}, fill={"prefetch": 3})
        async with serving(config) as mirror:
            for _ in range(2):
                for reference in ("t", Digest.of(body)):
                    reply = await get(mirror.address, f"/v2/u.test/a/manifests/{reference}")
                    assert (reply.status, reply.body) == (200, body)
                    assert reply.header("content-type") == OCI_MANIFEST
            index = mirror.service._store.folder.index
            links = await asyncio.to_thread(index.links, Repository("u.test", "a"), "", 10)
            assert [digest for digest, _, _ in links] == [Digest.of(body)]
            assert not any("/blobs/" in each.path for each in site.log)
            if what == "descriptors":
                reply = await get(mirror.address, f"/v2/u.test/a/blobs/{Digest.of(LAYER)}")
                assert (reply.status, reply.body) == (200, LAYER)


@pytest.mark.parametrize("layers", [500, MOST_DESCRIPTORS])
async def test_long_manifest_of_a_real_image_is_followed(layers: int, tmp_path: Path) -> None:
    """An image of 500 layers, the most that overlayfs mounts, has a link for each."""
    body = image(layers)
    async with Site(serves(body, OCI_MANIFEST)) as site:
        config = configured(tmp_path, {"u.test": site.url})
        async with serving(config) as mirror:
            assert (await get(mirror.address, "/v2/u.test/a/manifests/t")).body == body
            index = mirror.service._store.folder.index
            links = await asyncio.to_thread(index.links, Repository("u.test", "a"), "", layers + 10)
    assert len(links) == layers + 1


async def test_heavy_text_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    """A text that is not parsed must at least begin and end as a manifest does."""
    body = b"<html>" + b"{}," * 100_000
    async with Site(serves(body, OCI_INDEX)) as site:
        config = configured(tmp_path, {"u.test": site.url})
        async with serving(config) as mirror:
            assert (await get(mirror.address, "/v2/u.test/a/manifests/t")).status == 502


async def test_long_referrers_list_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of 20,000 entries is served whole, and read once for all requests that filter it."""
    entries = [
        {
            "mediaType": "a/b",
            "digest": str(Digest.of(b"%d" % each)),
            "size": 1,
            "artifactType": f"t/{each % 2}",
        }
        for each in range(20_000)
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    reads: list[str] = []

    def counted(array: str) -> dict[str, list[tuple[int, str]]]:
        reads.append(array)
        return texts_by_type(array)

    monkeypatch.setattr(listings, "texts_by_type", counted)

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Type": OCI_INDEX})

    async with Site(answer) as site:
        config = configured(tmp_path, {"u.test": site.url})
        async with serving(config) as mirror:
            path = f"/v2/u.test/a/referrers/{Digest.of(b'subject')}"
            for _ in range(2):
                reply = await get(mirror.address, path)
                assert (reply.status, json.loads(reply.body)["manifests"]) == (200, entries)
            for kind, expected in (("t/1", entries[1::2]), ("t/2", []), ("t/0", entries[::2])):
                reply = await get(mirror.address, f"{path}?artifactType={kind}")
                assert json.loads(reply.body)["manifests"] == expected
            assert len(site.log) == 1
    assert len(reads) == 1
