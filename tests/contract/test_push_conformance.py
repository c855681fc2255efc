"""OCI distribution-spec 1.1 from the pusher's side: "Push", each MUST and SHOULD with its section."""

import json
import re

import pytest

from mirror.oci.digest import Digest
from tests.contract.hosting import pusher as pusher  # fixtures
from tests.contract.hosting import running as running
from tests.fakes.pusher import OCI, Pusher, chunked, error, manifest_of
from tests.running import Running

LAYER = bytes(range(256)) * 8


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_push_post_then_put(pusher: Pusher, algorithm: str) -> None:
    """ "POST then PUT": 202 with Location; PUT MUST be 201 with a Location that pulls it."""
    begun = await pusher.begin(f"?digest-algorithm={algorithm}")
    assert begun.status == 202
    assert begun.header("location")
    digest = Digest.of(LAYER, algorithm)
    octets = "Content-Type: application/octet-stream"
    done = await pusher.finish(begun.header("location"), digest, octets, body=LAYER)
    assert done.status == 201
    pulled = await pusher.ask("GET", done.header("location"))
    assert (pulled.status, pulled.body) == (200, LAYER)


async def test_push_session_ids_are_unique(pusher: Pusher) -> None:
    """ "POST then PUT": "<location> MUST contain a UUID representing a unique session ID"."""
    locations = [await pusher.session() for _ in range(5)]
    assert len(set(locations)) == 5
    for each in locations:
        assert re.search(r"/blobs/uploads/[A-Za-z0-9_-]{32}$", each)


async def test_push_location_takes_a_query(pusher: Pusher) -> None:
    """ "POST then PUT": Location "MAY contain critical query parameters"; ours joins with the client's."""
    location = await pusher.session()
    done = await pusher.ask("PUT", f"{location}?extra=1&digest={Digest.of(b'')}", body=b"")
    assert done.status == 201


async def test_push_single_post(pusher: Pusher) -> None:
    """ "Single POST": 201 with a Location; "Successful completion MUST be indicated by 201 Created"."""
    done = await pusher.ask("POST", f"blobs/uploads/?digest={Digest.of(LAYER)}", body=LAYER)
    assert done.status == 201
    assert (await pusher.ask("GET", done.header("location"))).body == LAYER


async def test_push_single_post_without_content_falls_back(pusher: Pusher) -> None:
    """ "Single POST": a registry that does not take it "SHOULD return a 202", and the client goes on."""
    begun = await pusher.begin(f"?digest={Digest.of(LAYER)}")
    assert begun.status == 202
    assert (await pusher.finish(begun.header("location"), Digest.of(LAYER), body=LAYER)).status == 201


async def test_push_in_chunks(pusher: Pusher) -> None:
    """ "Pushing a blob in chunks": each PATCH MUST be 202 with Location and Range."""
    begun = await pusher.ask("POST", "blobs/uploads/", body=b"")
    assert begun.status == 202
    assert int(begun.header("oci-chunk-min-length")) >= 0  # 'MAY be included'
    location, offset = begun.header("location"), 0
    for size in (100, 900):
        chunk = LAYER[offset : offset + size]
        place = f"Content-Range: {offset}-{offset + size - 1}"
        patched = await pusher.ask("PATCH", location, place, body=chunk)
        offset += size
        assert (patched.status, patched.header("range")) == (202, f"0-{offset - 1}")
        location = patched.header("location")
    rest = LAYER[offset:]
    place = f"Content-Range: {offset}-{len(LAYER) - 1}"
    done = await pusher.finish(location, Digest.of(LAYER), place, body=rest)
    assert done.status == 201
    assert (await pusher.ask("GET", done.header("location"))).body == LAYER


async def test_push_in_chunks_ends_without_content(pusher: Pusher) -> None:
    """ "Pushing a blob in chunks": "the closing PUT MAY be empty"; "Content-Length: 0" then."""
    location = await pusher.session()
    patched = await pusher.ask("PATCH", location, f"Content-Range: 0-{len(LAYER) - 1}", body=LAYER)
    done = await pusher.finish(patched.header("location"), Digest.of(LAYER))
    assert done.status == 201
    assert done.header("docker-content-digest") == str(Digest.of(LAYER))


async def test_push_streamed_in_one_patch(pusher: Pusher) -> None:
    """ "Pushing a blob in chunks": a stream is one PATCH, whose length and place the client does not know."""
    location = await pusher.session()
    pusher.wire.send("PATCH", location, ["Transfer-Encoding: chunked"])
    pusher.wire.writer.write(chunked(LAYER[:7], LAYER[7:]))
    patched = await pusher.wire.reply("PATCH")
    assert (patched.status, patched.header("range")) == (202, f"0-{len(LAYER) - 1}")
    assert (await pusher.finish(patched.header("location"), Digest.of(LAYER))).status == 201


@pytest.mark.parametrize("place", ["5-9", "0-4", "11-15"])
async def test_push_out_of_order_chunk_is_refused(running: Running, place: str) -> None:
    """ "Pushing a blob in chunks": out of order "MUST be a 416 Requested Range Not Satisfiable"."""
    async with await Pusher.open(running.address) as pusher:
        location = await pusher.session()
        assert (await pusher.ask("PATCH", location, "Content-Range: 0-9", body=LAYER[:10])).status == 202
        refused = await pusher.ask("PATCH", location, f"Content-Range: {place}", body=LAYER[:5])
        assert error(refused) == (416, "RANGE_INVALID")
    async with await Pusher.open(running.address) as pusher:  # nothing of it was taken
        status = await pusher.ask("GET", location)
        assert (status.status, status.header("range")) == (204, "0-9")
        assert status.header("location") == location
        assert (await pusher.ask("PATCH", location, "Content-Range: 10-14", body=LAYER[10:15])).status == 202
        assert (await pusher.finish(location, Digest.of(LAYER[:15]))).status == 201


async def test_push_out_of_order_end_is_refused(pusher: Pusher) -> None:
    """ "Pushing a blob in chunks": the closing PUT with a chunk goes by the same rule."""
    location = await pusher.session()
    refused = await pusher.finish(location, Digest.of(LAYER), "Content-Range: 5-9", body=LAYER[:5])
    assert error(refused) == (416, "RANGE_INVALID")


async def test_push_status_and_cancel(pusher: Pusher) -> None:
    """ "GET upload status": "MUST be 204 No Content" with Location and Range; "Cancel": DELETE is 204."""
    location = await pusher.session()
    await pusher.ask("PATCH", location, body=LAYER)
    status = await pusher.ask("GET", location)
    assert (status.status, status.header("range")) == (204, f"0-{len(LAYER) - 1}")
    assert (await pusher.ask("DELETE", location)).status == 204
    assert error(await pusher.ask("GET", location)) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_push_with_another_digest_keeps_the_session(pusher: Pusher) -> None:
    """ "Error Codes": DIGEST_INVALID; the blob is not there, and the upload can still be finished."""
    location = await pusher.session()
    refused = await pusher.finish(location, Digest.of(b"other"), body=LAYER)
    assert error(refused) == (400, "DIGEST_INVALID")
    assert (await pusher.ask("HEAD", f"blobs/{Digest.of(b'other')}")).status == 404
    assert (await pusher.ask("HEAD", f"blobs/{Digest.of(LAYER)}")).status == 404
    assert (await pusher.finish(location, Digest.of(LAYER))).status == 201


@pytest.mark.parametrize("named", [True, False])
async def test_push_mount(running: Running, named: bool) -> None:
    """ "Mounting a blob from another repository": 201 with Location; `from` is optional ("automatic content
    discovery")."""
    async with await Pusher.open(running.address, "office/base") as base:
        await base.blob(LAYER)
    async with await Pusher.open(running.address, "office/other") as other:
        source = "&from=office/base" if named else ""
        mounted = await other.begin(f"?mount={Digest.of(LAYER)}{source}")
        assert mounted.status == 201
        assert (await other.ask("GET", mounted.header("location"))).body == LAYER


async def test_push_mount_of_nothing_begins_an_upload(pusher: Pusher) -> None:
    """ "Mounting": "the registry SHOULD return a 202", as if for POST, "and the client goes on"."""
    begun = await pusher.begin(f"?mount={Digest.of(LAYER)}&from=office/nothing")
    assert begun.status == 202
    assert (await pusher.finish(begun.header("location"), Digest.of(LAYER), body=LAYER)).status == 201


async def test_push_manifest_by_tag_and_digest(pusher: Pusher) -> None:
    """ "Pushing Manifests": 201 with a Location that pulls it; the bytes "MUST" be kept as they were sent."""
    await pusher.blob(b"{}")
    await pusher.blob(LAYER)
    data = b" " + manifest_of([LAYER]) + b"\n"
    for reference in ("1.0", Digest.of(data)):
        pushed = await pusher.manifest(reference, data)
        assert pushed.status == 201
        assert pushed.header("docker-content-digest") == str(Digest.of(data))
        pulled = await pusher.ask("GET", pushed.header("location"))
        assert (pulled.body, pulled.header("content-type")) == (data, OCI)


async def test_push_manifest_by_sha512(pusher: Pusher) -> None:
    """ "Pushing Manifests": a digest of any registered algorithm names the manifest."""
    for each in (b"{}", LAYER):
        await pusher.blob(each, "sha512")
    data = manifest_of([LAYER], algorithm="sha512")
    digest = Digest.of(data, "sha512")
    pushed = await pusher.manifest(digest, data)
    assert (pushed.status, pushed.header("docker-content-digest")) == (201, str(digest))
    assert (await pusher.ask("GET", f"manifests/{digest}")).body == data


async def test_push_manifest_again_is_created_again(pusher: Pusher) -> None:
    """ "Pushing Manifests": the same bytes to the same tag; Helm pushes by digest, and then by tag."""
    digest = await pusher.image("1", LAYER)
    again = await pusher.manifest("1", manifest_of([LAYER]))
    assert (again.status, again.header("docker-content-digest")) == (201, str(digest))


async def test_push_manifest_of_four_mebibytes(pusher: Pusher) -> None:
    """ "Pushing Manifests": a registry "SHOULD" take 4 MiB, and "MUST" answer 413 beyond its limit."""
    await pusher.blob(b"{}")
    size = 4 * 1024 * 1024
    empty = len(manifest_of([], annotations={"a": ""}))
    data = manifest_of([], annotations={"a": "x" * (size - empty)})
    assert len(data) == size
    assert (await pusher.manifest("large", data)).status == 201
    assert (await pusher.manifest("larger", data + b" ")).status == 413


async def test_push_manifest_needs_its_blobs(pusher: Pusher) -> None:
    """ "Pushing Manifests": a registry "MAY" refuse what names missing blobs: MANIFEST_BLOB_UNKNOWN each."""
    refused = await pusher.manifest("1", manifest_of([LAYER]))
    found = json.loads(refused.body)["errors"]
    assert {each["code"] for each in found} == {"MANIFEST_BLOB_UNKNOWN"}
    assert len(found) == 2
    assert (await pusher.ask("HEAD", "manifests/1")).status == 404


async def test_push_manifest_with_subject(pusher: Pusher) -> None:
    """ "Pushing Manifests with Subject": OCI-Subject MUST be there; a missing subject is taken."""
    await pusher.blob(b"{}")
    subject = Digest.of(b"not here")
    data = manifest_of([], subject={"mediaType": OCI, "digest": str(subject), "size": 8})
    pushed = await pusher.manifest(Digest.of(data), data)
    assert (pushed.status, pushed.header("oci-subject")) == (201, str(subject))
    listed = json.loads((await pusher.ask("GET", f"referrers/{subject}")).body)
    assert [each["digest"] for each in listed["manifests"]] == [str(Digest.of(data))]
    plain = await pusher.manifest("plain", manifest_of([]))
    assert "oci-subject" not in plain.headers


async def test_push_warnings_and_errors_are_of_the_form(pusher: Pusher) -> None:
    """ "Error Codes": errors are JSON with `errors`, each of which has a code."""
    for reply in (
        await pusher.ask("PUT", f"blobs/uploads/{'a' * 32}?digest={Digest.of(b'')}", body=b""),
        await pusher.ask("PATCH", f"blobs/uploads/{'a' * 32}"),
        await pusher.ask("PUT", "manifests/1"),
    ):
        assert reply.header("content-type") == "application/json"
        (found,) = json.loads(reply.body)["errors"]
        assert re.fullmatch("[A-Z_]+", found["code"])
        assert found["message"]
