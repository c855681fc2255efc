"""Framing rules: what is refused, and the wait behind the last request."""

import asyncio
import errno
import itertools
import socket

import pytest
from aiohttp import HttpVersion
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from mirror.web.framing import FORM_BYTES, HeadSplitter, PostedForm, UnreadBody, body_of, refusal


def message(version: HttpVersion, headers: dict[str, str], method: str = "GET") -> RawRequestMessage:
    fields = CIMultiDictProxy(CIMultiDict(headers))
    return RawRequestMessage(method, "/", version, fields, (), False, None, False, False, URL("/"))


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        (HttpVersion(1, 1), {"Transfer-Encoding": "chunked"}, None),
        (HttpVersion(1, 0), {}, None),
        (HttpVersion(1, 0), {"transfer-encoding": "chunked"}, 400),
        (HttpVersion(2, 0), {}, 505),
        (HttpVersion(1, 2), {}, 505),
    ],
)
def test_refusal(version: HttpVersion, headers: dict[str, str], status: int | None) -> None:
    """Only HTTP/1.0 without Transfer-Encoding, and HTTP/1.1, are spoken."""
    reason = refusal(message(version, headers))
    assert (reason and reason.status) == status


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ("/v2/", False),
        ("http://mirror.test:5000/v2/", False),
        ("http://[::1]/v2/", False),
        ("http://xn--zzzz--/v2/", True),
        ("http://a\udcff/v2/", True),
        ("/v2/\udcff", True),
    ],
)
def test_refusal_of_targets_that_no_request_can_be_made_of(target: str, refused: bool) -> None:
    """aiohttp decodes the host where nothing answers for an error: the client would wait without end."""
    asked = message(HttpVersion(1, 1), {})._replace(path=target, url=URL(target, encoded=True))
    reason = refusal(asked)
    assert (reason is not None and reason.status == 400) == refused


async def test_unread_body_ends_when_the_client_has_left() -> None:
    """aiohttp waits for the end of a body that nothing feeds."""
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), "127.0.0.1", 0)
    reader, client = await asyncio.open_connection(*server.sockets[0].getsockname())
    ours = await accepted
    body = UnreadBody(ours.transport)
    waiting = asyncio.ensure_future(body.readany())
    assert await reader.read() == b""
    assert not body.is_eof()
    body.client_left()
    assert await waiting == b""
    assert body.is_eof()
    for each in (ours, client):
        each.close()
        await each.wait_closed()
    server.close()


async def test_unread_body_ends_when_the_client_has_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset that asyncio has not noticed yet is no error."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)

    def not_connected() -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(transport, "write_eof", not_connected)
    body = UnreadBody(transport)
    assert await asyncio.wait_for(body.readany(), 10) == b""
    assert body.is_eof()
    transport.close()
    theirs.close()


@pytest.mark.parametrize(
    ("method", "headers", "read"),
    [
        ("POST", {"Content-Length": "10"}, True),
        ("POST", {"Content-Length": str(FORM_BYTES)}, True),
        ("POST", {"Content-Length": str(FORM_BYTES + 1)}, False),
        ("POST", {"Content-Length": "9" * 100}, False),
        ("POST", {"Content-Length": "-1"}, False),
        ("POST", {"Content-Length": "\u00b2"}, False),
        ("POST", {"Transfer-Encoding": "chunked"}, False),
        ("POST", {"Transfer-Encoding": "chunked", "Content-Length": "10"}, False),
        ("PUT", {"Content-Length": "10"}, False),
        ("GET", {"Content-Length": "10"}, False),
    ],
)
async def test_short_form_alone_is_read(method: str, headers: dict[str, str], read: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    body = body_of(message(HttpVersion(1, 1), headers, method), transport)
    assert isinstance(body, PostedForm) is read
    transport.close()
    theirs.close()


async def test_form_is_what_its_length_says() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    form = PostedForm(transport, 5)
    assert form.feed(b"ab") == b""
    waiting = asyncio.ensure_future(form.whole())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert form.feed(b"cdeGET /") == b"GET /"
    assert await waiting == b"abcde"
    assert form.feed(b"more") == b"more"
    assert await PostedForm(transport, 0).whole() == b""
    assert UnreadBody(transport).feed(b"all") == b"all"
    transport.close()
    theirs.close()


@pytest.mark.parametrize(
    "cuts", [(), *itertools.combinations(range(1, 12), 1), *itertools.combinations(range(1, 12), 3)]
)
def test_head_splitter_splits_behind_each_head(cuts: tuple[int, ...]) -> None:
    """The end of a head is found wherever segments end."""
    data = b"a\r\n\r\nb\r\n\r\nc"
    splitter = HeadSplitter()
    segments = [data[start:stop] for start, stop in itertools.pairwise((0, *cuts, len(data)))]
    parts = [part for segment in segments for part in splitter.split(segment)]
    assert b"".join(parts) == data
    assert {5, 10} <= set(itertools.accumulate(map(len, parts)))
