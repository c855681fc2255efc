"""Bodies of pushes: when they are read, how much is held, and what follows them."""

import asyncio
from typing import Any, cast

import pytest
from aiohttp import HttpVersion
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from mirror.web.framing import UnreadBody
from mirror.web.hosted import body as module
from mirror.web.hosted.body import CONTINUE, HELD_BYTES, PushedBody, WrongBody, body_of

PATH = "/v2/office/app/blobs/uploads/"


class Socket:
    """A transport that notes what is done with it."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = True
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return False


def pushed(length: int | None, *, awaits: bool = False) -> tuple[PushedBody, Socket]:
    socket = Socket()
    return PushedBody(cast(Any, socket), length, awaits_continue=awaits), socket


async def test_body_is_not_read_before_the_client_may_push() -> None:
    body, socket = pushed(10, awaits=True)
    assert socket.written == b""
    body.feed(b"12345")
    assert not socket.reading
    body.start()
    assert socket.reading
    body.feed(b"67890GET /")
    assert b"".join((await body.take(10)).take()) == b"1234567890"
    assert body.is_complete
    assert body.rest() == b"GET /"
    assert not (await body.take(10)).size


async def test_continue_is_sent_once_and_only_where_no_byte_has_come() -> None:
    body, socket = pushed(10, awaits=True)
    body.start()
    body.start()
    assert socket.written == CONTINUE
    for early, awaits in ((b"1", True), (b"", False)):
        body, socket = pushed(10, awaits=awaits)
        if early:
            body.feed(early)
        body.start()
        assert socket.written == b""


async def test_body_is_read_no_further_while_enough_is_held() -> None:
    body, socket = pushed(4 * HELD_BYTES)
    body.start()
    body.feed(b"x" * (HELD_BYTES - 1))
    assert socket.reading
    body.feed(b"x")
    assert not socket.reading
    taking = asyncio.ensure_future(body.take(2 * HELD_BYTES))
    await asyncio.sleep(0)
    assert socket.reading
    body.feed(b"y" * HELD_BYTES)
    assert (await taking).size == 2 * HELD_BYTES


async def test_body_in_chunks_ends_where_its_last_chunk_does() -> None:
    body, _ = pushed(None)
    body.start()
    for piece in (b"3\r\nabc\r", b"\n2;x\r\nde\r\n0\r\n", b"\r\nrest"):
        body.feed(piece)
    assert b"".join((await body.take(100)).take()) == b"abcde"
    assert body.is_complete
    assert body.rest() == b"rest"


async def test_body_in_tiny_chunks_is_held_in_few_parts() -> None:
    body, _ = pushed(None)
    body.start()
    body.feed(b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n")
    parts = await body.take(30_000)
    assert parts.size == 30_000
    assert len(parts.take()) == 1


async def test_body_with_a_wrong_chunk_is_refused() -> None:
    body, _ = pushed(None)
    body.start()
    body.feed(b"zz\r\n")
    with pytest.raises(WrongBody) as wrong:
        await body.take(1)
    assert wrong.value.status == 400
    assert not body.is_complete


async def test_body_that_does_not_come_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    body, _ = pushed(10)
    body.start()
    body.feed(b"123")
    with pytest.raises(WrongBody) as wrong:
        await body.take(10)
    assert wrong.value.status == 408


async def test_body_of_a_client_that_left_ends_with_an_error() -> None:
    body, _ = pushed(10)
    body.start()
    body.feed(b"123")
    body.client_left()
    with pytest.raises(ConnectionResetError):
        await body.take(10)
    assert body.is_eof()


async def test_body_that_is_refused_is_drained_a_little() -> None:
    body, socket = pushed(10**9)
    body.feed(b"x" * 1000)
    assert not socket.reading
    reading = asyncio.ensure_future(body.readany())
    await asyncio.sleep(0)
    assert socket.reading
    body.feed(b"x" * 200_000)
    assert socket.reading
    body.feed(b"x" * 200_000)
    assert not socket.reading
    body.client_left()
    await reading


def message(method: str, path: str, *headers: tuple[str, str], upgrade: bool = False) -> RawRequestMessage:
    fields = CIMultiDictProxy(CIMultiDict(headers))
    version = HttpVersion(1, 1)
    return RawRequestMessage(method, path, version, fields, (), False, None, upgrade, False, URL(path))


CHUNKED, LENGTH = ("Transfer-Encoding", "chunked"), ("Content-Length", "7")


@pytest.mark.parametrize(
    ("asked", "length"),
    [
        (message("PATCH", PATH + "x", CHUNKED), None),
        (message("PATCH", PATH + "x", LENGTH), 7),
        (message("POST", PATH, ("transfer-encoding", "Chunked")), None),
        (message("PUT", "/v2/office/app/manifests/1", LENGTH), 7),
    ],
)
def test_body_of_a_push_is_read(asked: RawRequestMessage, length: int | None) -> None:
    body = body_of(asked, cast(Any, Socket()))
    assert isinstance(body, PushedBody)
    assert body.length == length


@pytest.mark.parametrize(
    "asked",
    [
        message("GET", PATH + "x", LENGTH),
        message("POST", "/token", LENGTH),
        message("POST", "/v2/office/app/tags/list", LENGTH),
        message("PATCH", PATH + "x", CHUNKED, LENGTH),
        message("PATCH", PATH + "x", ("Transfer-Encoding", "gzip, chunked")),
        message("PATCH", PATH + "x", CHUNKED, CHUNKED),
        message("PATCH", PATH + "x", LENGTH, LENGTH),
        message("PATCH", PATH + "x", ("Content-Length", "-7")),
        message("PATCH", PATH + "x", ("Content-Length", "9" * 20)),
        message("PATCH", PATH + "x", LENGTH, upgrade=True),
        message("PATCH", PATH + "x", LENGTH, ("Upgrade", "h2c")),
    ],
)
def test_body_of_anything_else_is_not_read(asked: RawRequestMessage) -> None:
    body = body_of(asked, cast(Any, Socket()))
    assert isinstance(body, UnreadBody)
    assert not isinstance(body, PushedBody)


async def test_short_body_that_came_whole_does_not_stop_the_connection() -> None:
    """More bytes behind it do, until the client may push."""
    body, socket = pushed(5)
    body.feed(b"12345")
    assert socket.reading
    body.feed(b"GET /")
    assert not socket.reading
    body.start()
    assert socket.reading
    assert b"".join((await body.take(10)).take()) == b"12345"
    assert body.is_complete
    assert body.rest() == b"GET /"
