"""Uploads over HTTP: Content-Range in all spellings, whole pushes, answers that were lost."""

import pytest

from mirror.oci.digest import Digest
from tests.fakes.pusher import Pusher, error
from tests.running import Running


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("4-7", 202),
        ("bytes 4-7/8", 202),
        ("bytes=4-7", 202),
        ("0-3", 416),
        ("5-8", 416),
        ("4-8", 400),
        ("4-", 400),
        ("-4", 400),
        ("7-4", 400),
        ("x", 400),
        ("4-7" * 9, 400),
    ],
)
async def test_chunk_must_follow_the_last_one(pusher: Pusher, text: str, status: int) -> None:
    location = await pusher.session()
    assert (await pusher.ask("PATCH", location, body=b"0123")).status == 202
    reply = await pusher.ask("PATCH", location, f"Content-Range: {text}", body=b"4567")
    assert reply.status == status
    if status == 416:
        assert reply.header("range") == "0-3"
        assert reply.header("location") == location


async def test_whole_push_that_is_refused_leaves_no_session(pusher: Pusher) -> None:
    reply = await pusher.begin(f"?digest={Digest.of(b'x')}")
    assert reply.status == 202  # no body: the client goes on with PUT
    assert (await pusher.ask("DELETE", reply.header("location"))).status == 204
    refused = await pusher.ask("POST", f"blobs/uploads/?digest={Digest.of(b'x')}", body=b"other")
    assert error(refused) == (400, "DIGEST_INVALID")
    assert error(await pusher.begin("?digest-algorithm=md5")) == (400, "DIGEST_INVALID")


async def test_end_that_is_repeated_is_answered_as_the_first(pusher: Pusher, hosting: Running) -> None:
    """The answer of the first may have been lost with its connection."""
    location = await pusher.session()
    for data, status in ((b"x", 201), (b"x", 201), (b"y", 404)):
        async with await Pusher.open(hosting.address) as client:
            done = await client.finish(location, Digest.of(data), body=data)
        assert done.status == status
        if status == 201:
            assert done.header("docker-content-digest") == str(Digest.of(b"x"))


async def test_end_without_a_digest_is_refused(pusher: Pusher) -> None:
    location = await pusher.session()
    assert error(await pusher.ask("PUT", location, body=b"")) == (400, "DIGEST_INVALID")
    assert error(await pusher.finish(location, "sha256:x")) == (400, "DIGEST_INVALID")
    assert (await pusher.finish(location, Digest.of(b""))).status == 201
