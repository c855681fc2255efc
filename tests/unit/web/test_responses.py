"""Headers, conditions and ranges, as clients check them."""

import re

import pytest
from multidict import CIMultiDict

from mirror.oci.digest import Digest
from mirror.web.responses import matches, stale_headers
from tests.fakes.content import FakeImage
from tests.running import Running
from tests.wire import Wire, get, head

D = Digest.of(b"x")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (None, False),
        (f'"{D}"', True),
        (f'W/"{D}"', True),
        (f'"other", "{D}"', True),
        ("*", True),
        (str(D), False),
        ('"other"', False),
        ("", False),
    ],
)
def test_if_none_match_names_the_digest(condition: str | None, expected: bool) -> None:
    """RFC 9110 13.1.2: a list of quoted tags, weak ones included, or a star."""
    assert matches(condition, D) is expected


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_if_none_match_gets_304(mirror: Running, image: FakeImage, method: str) -> None:
    """Manifests by tag and digest and blobs, when the client's ETag is the digest."""
    for path, digest in (
        ("manifests/t", image.manifest),
        (f"manifests/{image.manifest}", image.manifest),
        (f"blobs/{image.layers[0]}", image.layers[0]),
    ):
        async with await Wire.open(mirror.address) as wire:
            wire.send(method, f"/v2/library/x/{path}", [f'If-None-Match: "{digest}"'])
            reply = await wire.head()
            assert (reply.status, reply.header("etag")) == (304, f'"{digest}"')
            wire.send(method, f"/v2/library/x/{path}", ['If-None-Match: "sha256:other"'])
            assert (await wire.reply(method)).status == 200


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("pages=1-2", 200, b"0123456789", None),
        ("bytes=x", 200, b"0123456789", None),
    ],
)
@pytest.mark.parametrize("warm", [False, True])
async def test_range_of_a_blob(
    mirror: Running,
    image: FakeImage,
    header: str,
    status: int,
    body: bytes,
    content_range: str | None,
    warm: bool,
) -> None:
    """A range is the same during the fill and from the store: exact bytes, numbers and length."""
    path = f"/v2/library/x/blobs/{image.layers[0]}"
    if warm:
        await get(mirror.address, path)
        await mirror.landed(image.layers[0])
    reply = await get(mirror.address, path, f"Range: {header}")
    assert (reply.status, reply.body, reply.headers.get("content-range")) == (status, body, content_range)
    assert reply.header("accept-ranges") == "bytes"
    assert reply.header("etag") == f'"{image.layers[0]}"'


async def test_range_beyond_the_end_gets_416(mirror: Running, image: FakeImage) -> None:
    """The response has the size, so that the client can ask again."""
    reply = await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}", "Range: bytes=10-")
    assert (reply.status, reply.header("content-range")) == (416, "bytes */10")
    assert b"RANGE_INVALID" in reply.body


async def test_head_ignores_range(mirror: Running, image: FakeImage) -> None:
    """RFC 9110 14.2: Range is for GET."""
    reply = await head(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}", "Range: bytes=0-1")
    assert (reply.status, reply.header("content-length")) == (200, "10")


@pytest.mark.parametrize(
    ("tag", "status"), [("the digest", 206), ('"other"', 200), ("Mon, 01 Jan 2024", 200)]
)
async def test_if_range_compares_with_the_digest(
    mirror: Running, image: FakeImage, tag: str, status: int
) -> None:
    """A client that resumes something else gets everything."""
    tag = f'"{image.layers[0]}"' if tag == "the digest" else tag
    reply = await get(
        mirror.address, f"/v2/library/x/blobs/{image.layers[0]}", "Range: bytes=5-", f"If-Range: {tag}"
    )
    assert reply.status == status


async def test_connection_is_reusable_after_every_response(mirror: Running, image: FakeImage) -> None:
    """Responses of every kind leave the connection ready for the next request."""
    async with await Wire.open(mirror.address) as wire:
        for method, path, header, status in (
            ("GET", f"blobs/{image.layers[0]}", "Range: bytes=1-2", 206),
            ("GET", f"blobs/{image.layers[0]}", "Range: bytes=1-2,4-5", 206),
            ("GET", f"blobs/{image.layers[0]}", "Range: bytes=99-", 416),
            ("HEAD", "manifests/t", "X: y", 200),
            ("GET", "manifests/nothing", "X: y", 404),
            ("HEAD", "manifests/nothing", "X: y", 404),
            ("GET", f"blobs/{image.layers[0]}", "X: y", 200),
        ):
            wire.send(method, f"/v2/library/x/{path}", [header])
            reply = await wire.reply(method)
            assert (reply.status, reply.complete) == (status, True)


@pytest.mark.parametrize(
    "reason", ['a "quoted" word', "back\\slash", "100 %41", "line\r\nSet-Cookie: x", "ü", "x" * 999]
)
def test_stale_headers_name_the_reason_in_a_warning_of_their_own(reason: str) -> None:
    """The text of the OCI's Warning has no quote, escape, control or non-ASCII character, and is bounded."""
    lines = CIMultiDict(stale_headers(7.4, reason)).getall("Warning")
    assert lines[1] == '110 registry-mirror "Response is Stale"'
    found = re.fullmatch(r'299 - "([ -~]{1,240})"', lines[0])
    assert found is not None
    assert not set(found[1]) & set('"\\%')
