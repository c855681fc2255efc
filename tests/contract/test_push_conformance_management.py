"""OCI distribution-spec 1.1: "Content Discovery", "Content Management" and "Pull" of what was pushed."""

import json

import pytest

from mirror.oci.digest import Digest
from tests.contract.hosting import pusher as pusher  # fixtures
from tests.contract.hosting import running as running
from tests.fakes.pusher import OCI, Pusher, descriptor, error, manifest_of

LAYER = bytes(range(256)) * 8


async def tags(pusher: Pusher, query: str = "") -> tuple[list[str], str | None]:
    reply = await pusher.ask("GET", f"tags/list{query}")
    assert reply.status == 200
    return json.loads(reply.body)["tags"], reply.headers.get("link")


async def test_tags_are_listed_in_order_and_pages(pusher: Pusher) -> None:
    """ "Listing Tags": in lexical order; `n` MUST bound the page, and Link names the next one."""
    await pusher.image("b", LAYER)
    for tag in ("a", "C", "d"):
        assert (await pusher.manifest(tag, manifest_of([LAYER]))).status == 201
    everything, link = await tags(pusher)
    assert everything == ["C", "a", "b", "d"]
    assert link is None
    page, link = await tags(pusher, "?n=2")
    assert page == ["C", "a"]
    assert link is not None
    assert link.endswith('; rel="next"')
    following = link[link.index("<") + 1 : link.index(">")]
    assert json.loads((await pusher.ask("GET", following)).body)["tags"] == ["b", "d"]
    assert await tags(pusher, "?n=0") == ([], None)
    assert (await tags(pusher, "?last=a"))[0] == ["b", "d"]


async def test_tags_of_an_unknown_repository(pusher: Pusher) -> None:
    """ "Listing Tags": "If the repository is not found ... MUST be 404 Not Found"."""
    pusher.base = "/v2/office/nothing"
    assert error(await pusher.ask("GET", "tags/list")) == (404, "NAME_UNKNOWN")


async def test_referrers_are_listed_and_filtered(pusher: Pusher) -> None:
    """ "Listing Referrers": 200 with an index "MUST", also without any; filtering is named by its header."""
    digest = await pusher.image("1", LAYER)
    none = await pusher.ask("GET", f"referrers/{digest}")
    assert (none.status, json.loads(none.body)["manifests"]) == (200, [])
    assert none.header("content-type") == "application/vnd.oci.image.index.v1+json"
    subject = {"mediaType": OCI, "digest": str(digest), "size": len(manifest_of([LAYER]))}
    pushed = {}
    for kind in ("a/sbom", "a/signature"):
        data = manifest_of([], subject=subject, artifactType=kind, annotations={"of": kind})
        assert (await pusher.manifest(Digest.of(data), data)).status == 201
        pushed[kind] = {**descriptor(data, OCI), "artifactType": kind, "annotations": {"of": kind}}
    listed = await pusher.ask("GET", f"referrers/{digest}")
    assert sorted(json.loads(listed.body)["manifests"], key=str) == sorted(pushed.values(), key=str)
    assert "oci-filters-applied" not in listed.headers
    some = await pusher.ask("GET", f"referrers/{digest}?artifactType=a/sbom")
    assert json.loads(some.body)["manifests"] == [pushed["a/sbom"]]
    assert some.header("oci-filters-applied") == "artifactType"
    assert (await pusher.ask("GET", "referrers/nonsense")).status == 400  # "If ... invalid ... MUST be 400"


async def test_long_list_of_referrers_comes_in_pages(pusher: Pusher, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "Listing Referrers": the rest of a list is named by Link, with the filter of the first page.

    No answer is longer than its bound, whatever was pushed: others ask for it, and may take nothing of it.
    """
    monkeypatch.setattr("mirror.store.metadata.pushed_referrers.PAGE_BYTES", 120_000)
    digest = await pusher.image("1", LAYER)
    subject = {"mediaType": OCI, "digest": str(digest), "size": 1}
    pushed = set()
    for number in range(6):
        notes = {"of": f"{number}{'x' * 50_000}"}
        data = manifest_of([], subject=subject, artifactType=f"a/{number % 2}", annotations=notes)
        assert (await pusher.manifest(Digest.of(data), data)).status == 201
        pushed.add((f"a/{number % 2}", str(Digest.of(data))))
    for query, count in (("", 6), ("?artifactType=a/1", 3)):
        found, following = [], f"referrers/{digest}{query}"
        while following:
            page = await pusher.ask("GET", following)
            assert (page.status, len(page.body) < 121_000) == (200, True)
            assert ("oci-filters-applied" in page.headers) == bool(query)
            found += [(each["artifactType"], each["digest"]) for each in json.loads(page.body)["manifests"]]
            link = page.headers.get("link", "<>")
            following = link[link.index("<") + 1 : link.index(">")]
        assert len(found) == count
        assert set(found) == (pushed if not query else {each for each in pushed if each[0] == "a/1"})
    assert (await pusher.ask("GET", f"referrers/{digest}?last=nonsense")).status == 400


async def test_referrers_forget_what_was_deleted(pusher: Pusher) -> None:
    """ "Deleting Manifests": a deleted manifest is in no list of referrers any more."""
    digest = await pusher.image("1", LAYER)
    data = manifest_of([], subject={"mediaType": OCI, "digest": str(digest), "size": 1})
    await pusher.manifest(Digest.of(data), data)
    assert (await pusher.ask("DELETE", f"manifests/{Digest.of(data)}")).status == 202
    assert json.loads((await pusher.ask("GET", f"referrers/{digest}")).body)["manifests"] == []


async def test_delete_tag_keeps_the_manifest(pusher: Pusher) -> None:
    """ "Deleting tags": 202; the tag is gone, and what it pointed to is there by its digest."""
    digest = await pusher.image("1", LAYER)
    assert (await pusher.ask("DELETE", "manifests/1")).status == 202
    assert error(await pusher.ask("GET", "manifests/1")) == (404, "MANIFEST_UNKNOWN")
    assert (await pusher.ask("GET", f"manifests/{digest}")).status == 200
    assert (await tags(pusher))[0] == []
    assert (await pusher.ask("DELETE", "manifests/1")).status == 404


async def test_delete_manifest_takes_its_tags(pusher: Pusher) -> None:
    """ "Deleting Manifests": "MUST be 202 Accepted", and 404 for one that is not there."""
    digest = await pusher.image("1", LAYER)
    assert (await pusher.ask("DELETE", f"manifests/{digest}")).status == 202
    for reference in ("1", digest):
        assert error(await pusher.ask("GET", f"manifests/{reference}")) == (404, "MANIFEST_UNKNOWN")
    assert error(await pusher.ask("DELETE", f"manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")


async def test_delete_blob(pusher: Pusher) -> None:
    """ "Deleting Blobs": "MUST be 202 Accepted", and 404 for one that is not there."""
    await pusher.blob(LAYER)
    digest = Digest.of(LAYER)
    assert (await pusher.ask("DELETE", f"blobs/{digest}")).status == 202
    assert error(await pusher.ask("GET", f"blobs/{digest}")) == (404, "BLOB_UNKNOWN")
    assert error(await pusher.ask("DELETE", f"blobs/{digest}")) == (404, "BLOB_UNKNOWN")
    await pusher.blob(LAYER)
    assert (await pusher.ask("GET", f"blobs/{digest}")).body == LAYER


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_pull_of_what_was_pushed(pusher: Pusher, method: str) -> None:
    """ "Pulling manifests", "Pulling blobs": 200 with the digest; HEAD has the length, and no body."""
    digest = await pusher.image("1", LAYER)
    data = manifest_of([LAYER])
    for path, expected, name in (
        ("manifests/1", data, digest),
        (f"manifests/{digest}", data, digest),
        (f"blobs/{Digest.of(LAYER)}", LAYER, Digest.of(LAYER)),
    ):
        reply = await pusher.ask(method, path)
        assert reply.status == 200
        assert reply.header("docker-content-digest") == str(name)
        assert int(reply.header("content-length")) == len(expected)
        assert reply.body == (expected if method == "GET" else b"")


@pytest.mark.parametrize(
    ("asked", "status", "place"),
    [
        ("bytes=500-1499", 206, "bytes 500-1499/2048"),
        ("bytes=2000-5000", 206, "bytes 2000-2047/2048"),
        ("bytes=-500", 206, "bytes 1548-2047/2048"),
        ("bytes=5000-10000", 416, "bytes */2048"),
    ],
)
async def test_pull_of_a_range(pusher: Pusher, asked: str, status: int, place: str) -> None:
    """ "Pulling blobs": "A registry SHOULD support the Range request header" (RFC 9110)."""
    await pusher.blob(LAYER)
    reply = await pusher.ask("GET", f"blobs/{Digest.of(LAYER)}", f"Range: {asked}")
    assert (reply.status, reply.header("content-range")) == (status, place)


async def test_pull_of_nothing(pusher: Pusher) -> None:
    """ "Pulling manifests", "Checking if content exists": 404 with the code of what is missing."""
    for path, code in (
        ("manifests/none", "MANIFEST_UNKNOWN"),
        (f"manifests/{Digest.of(b'')}", "MANIFEST_UNKNOWN"),
        (f"blobs/{Digest.of(b'')}", "BLOB_UNKNOWN"),
    ):
        assert error(await pusher.ask("GET", path)) == (404, code)
        assert (await pusher.ask("HEAD", path)).status == 404


async def test_version_check(pusher: Pusher) -> None:
    """ "Determining Support": GET /v2/ "MUST be 200 OK" where no login is asked for."""
    assert (await pusher.ask("GET", "/v2/")).status == 200


async def test_catalog_names_what_was_pushed(pusher: Pusher) -> None:
    """The catalog, which the specification reserves, in pages."""
    for name in ("b", "a/x", "c"):
        pusher.base = f"/v2/office/{name}"
        await pusher.blob(LAYER)
        await pusher.image("1", LAYER)
    listed = json.loads((await pusher.ask("GET", "/v2/office/_catalog?n=2")).body)["repositories"]
    assert listed == ["a/x", "b"]
