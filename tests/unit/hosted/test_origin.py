"""Hosted registries over HTTP, beside an upstream that is gone."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.hosted.origin import MOST_LISTINGS
from mirror.hosted.registry import HostedRegistry
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.store.blobs.entries import SMALL_BYTES
from tests.hosting import (
    APP,
    CONFIG,
    descriptor,
    hosted_of,
    manifest_of,
    office,
    push_blob,
    push_image,
)
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
        assert (await head(two.address, paths[0])).header("docker-content-digest") == str(second)
        await hosted_of(one).delete_manifest(APP, first)
        assert (await get(two.address, paths[1])).status == 404
        await hosted_of(one).delete_blob(APP, Digest.of(b"layer"))
        assert (await get(two.address, f"/v2/office/app/blobs/{Digest.of(b'layer')}")).status == 404


async def test_hosted_tags_are_remembered_until_one_is_moved(tmp_path: Path) -> None:
    """A pull that comes again is answered without the index; what was pushed in between, from it."""
    async with office(tmp_path / "cache") as one, office(tmp_path / "cache") as two:
        path, go_on = "/v2/office/app/manifests/latest", threading.Event()
        first = await push_image(hosted_of(one), APP, "latest")
        for _ in range(3):
            await get(two.address, path)
        busy = [hosted_of(two).store._store.executor.start(go_on.wait) for _ in range(64)]
        try:
            again = await asyncio.wait_for(get(two.address, path), 30)  # no thread can read the disk
        finally:
            go_on.set()
            await asyncio.gather(*busy)
        assert Digest.of(again.body) == first
        for number in range(3):
            pushed = await push_image(hosted_of(one), APP, "latest", [b"layer %d" % number])
            for _ in range(3):
                assert Digest.of((await get(two.address, path)).body) == pushed


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # a task that tells nobody how far it has come
            await asyncio.sleep(0)


async def push_referrer(registry: HostedRegistry, subject: Digest, name: str) -> Digest:
    data = manifest_of(subject=descriptor(subject, 1, OCI_MANIFEST), annotations={"of": name})
    await push_blob(registry, APP, CONFIG)
    return (await registry.put_manifest(APP, Digest.of(data), OCI_MANIFEST, data)).digest


async def test_hosted_referrers_are_read_once_for_callers_that_wait(tmp_path: Path) -> None:
    """All get one object, which has what was pushed while they waited; other types have their own list."""
    async with office(tmp_path / "cache") as mirror:
        registry = hosted_of(mirror)
        origin, subject = registry.content, Digest.of(b"subject")
        await push_referrer(registry, subject, "first")
        for _ in range(MOST_LISTINGS):
            await origin._listing.acquire()
        callers = [asyncio.create_task(origin.referrers(APP, subject, ())) for _ in range(50)]
        other = asyncio.create_task(origin.referrers(APP, subject, ("a/b",)))
        left = asyncio.create_task(origin.referrers(APP, Digest.of(b"left"), ()))
        await asyncio.sleep(0)
        pushed = await push_referrer(registry, subject, "second")
        left.cancel()
        for _ in range(MOST_LISTINGS):
            origin._listing.release()
        answers = await asyncio.gather(*callers)
        assert len({id(each.data) for each in answers}) == 1
        assert str(pushed).encode() in answers[0].data
        assert json.loads((await other).data)["manifests"] == []
        await asyncio.gather(left, return_exceptions=True)
        await until(lambda: not origin._next_reads)  # the one without callers ends as well
        assert origin._next_reads == {}


async def test_hosted_referrers_that_are_being_read_get_no_further_caller(tmp_path: Path) -> None:
    """A list that is being read may lack what was pushed a moment ago."""
    async with office(tmp_path / "cache") as mirror:
        registry = hosted_of(mirror)
        origin, subject, go_on = registry.content, Digest.of(b"subject"), threading.Event()
        await push_referrer(registry, subject, "first")
        busy = [registry.store._store.executor.start(go_on.wait) for _ in range(64)]
        first = asyncio.create_task(origin.referrers(APP, subject, ()))
        await until(lambda: origin._listing._value < MOST_LISTINGS)
        second = asyncio.create_task(origin.referrers(APP, subject, ()))
        await until(lambda: origin._listing._value < MOST_LISTINGS - 1)
        go_on.set()
        assert (await first).data is not (await second).data
        await asyncio.gather(*busy)
