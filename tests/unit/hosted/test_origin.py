"""Hosted registries over HTTP, beside an upstream that is gone."""

import json
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.store.blobs.entries import SMALL_BYTES
from tests.hosting import APP, hosted_of, office, push_blob, push_image
from tests.wire import get, head


@pytest.mark.parametrize("offline", [False, True])
async def test_hosted_content_is_served_without_any_upstream(tmp_path: Path, offline: bool) -> None:
    """Every way to name the registry leads to it; ranges and conditions are those of cached content."""
    async with office(tmp_path / "cache", sections={"server": {"offline": offline}}) as mirror:
        large = b"0123456789" * (SMALL_BYTES // 10 + 1)
        digest = await push_image(hosted_of(mirror), APP, "latest", [large])
        layer = Digest.of(large)
        for path, header in (
            ("/v2/office/app/manifests/latest", "X: prefix"),
            ("/office/v2/app/manifests/latest", "X: prefix"),
            ("/v2/app/manifests/latest?ns=office", "X: ns"),
            ("/v2/app/manifests/latest", "Host: office.test:5000"),
            (f"/v2/office/app/manifests/{digest}", "X: digest"),
        ):
            reply = await get(mirror.address, path, header)
            assert (reply.status, Digest.of(reply.body)) == (200, digest)
            assert reply.header("content-type") == OCI_MANIFEST
            assert reply.header("docker-content-digest") == str(digest)
        reply = await get(mirror.address, f"/v2/office/app/blobs/{layer}", "Range: bytes=10-14")
        assert (reply.status, reply.body) == (206, b"01234")
        assert (await get(mirror.address, f"/v2/office/app/blobs/{layer}")).body == large
        known = f'If-None-Match: "{layer}"'
        assert (await get(mirror.address, f"/v2/office/app/blobs/{layer}", known)).status == 304
        assert (await head(mirror.address, f"/v2/office/app/blobs/{layer}")).header("content-length") == str(
            len(large)
        )


async def test_hosted_content_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    """404 with the code of its kind, at once; for referrers an empty list (OCI, "Listing Referrers")."""
    async with office(tmp_path / "cache") as mirror:
        await push_blob(hosted_of(mirror), APP, b"data")
        digest = Digest.of(b"none")
        for path, code in (
            ("manifests/none", "MANIFEST_UNKNOWN"),
            (f"manifests/{digest}", "MANIFEST_UNKNOWN"),
            (f"blobs/{digest}", "BLOB_UNKNOWN"),
        ):
            reply = await get(mirror.address, f"/v2/office/app/{path}")
            assert (reply.status, json.loads(reply.body)["errors"][0]["code"]) == (404, code)
        reply = await get(mirror.address, "/v2/office/none/tags/list")
        assert (reply.status, json.loads(reply.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
        reply = await get(mirror.address, f"/v2/office/app/referrers/{digest}")
        assert (reply.status, reply.header("content-type")) == (200, OCI_INDEX)
        assert json.loads(reply.body)["manifests"] == []


async def test_hosted_lists_are_paged(tmp_path: Path) -> None:
    """Tags with a Link to the next page; the catalog of all, and of the registry."""
    async with office(tmp_path / "cache") as mirror:
        for tag in ("a", "b", "c"):
            await push_image(hosted_of(mirror), APP, tag)
        reply = await get(mirror.address, "/v2/office/app/tags/list?n=2")
        assert json.loads(reply.body) == {"name": "app", "tags": ["a", "b"]}
        assert reply.header("link") == '</v2/office/app/tags/list?n=2&last=b>; rel="next"'
        assert json.loads((await get(mirror.address, "/v2/_catalog")).body) == {
            "repositories": ["office/app"]
        }
        assert json.loads((await get(mirror.address, "/v2/office/_catalog")).body) == {
            "repositories": ["app"]
        }


async def test_workers_see_pushes_and_deletions_at_once(tmp_path: Path) -> None:
    """Responses that a worker remembers end with what another worker changes: read-your-writes."""
    async with office(tmp_path / "cache") as one, office(tmp_path / "cache") as two:
        first = await push_image(hosted_of(one), APP, "latest")
        paths = ["/v2/office/app/manifests/latest", f"/v2/office/app/manifests/{first}"]
        for _ in range(3):
            for path in paths:
                assert Digest.of((await get(two.address, path)).body) == first
        second = await push_image(hosted_of(one), APP, "latest", [b"another layer"])
        assert Digest.of((await get(two.address, paths[0])).body) == second
        await hosted_of(one).delete_manifest(APP, first)
        assert (await get(two.address, paths[1])).status == 404
        await hosted_of(one).delete_blob(APP, Digest.of(b"layer"))
        assert (await get(two.address, f"/v2/office/app/blobs/{Digest.of(b'layer')}")).status == 404
