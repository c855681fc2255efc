"""Faults of heads: the header is named, and its value is not."""

import asyncio

import aiohttp
import pytest

from mirror.oci.header_fault import header_fault

SECRET = "c2VjcmV0"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"Content-Length: 5\r\nContent-Length: {SECRET[2:3]}", "the header Content-Length is there twice"),
        (f"Content-Length: {SECRET}", "the header Content-Length is not a number"),
        ("Content-Length: 99999999999999999999999", "the header Content-Length is too large"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "the header Transfer-Encoding is there beside"),
        (f"X-Odd: {SECRET}\x00b", "a header has a control character"),
        (f"X Odd: {SECRET}", "a header has a name with"),
        (SECRET, "a header has a name with"),
        (f"X-Long: {SECRET * 30_000}", "longer than 131072 bytes"),
        ("\r\n".join(f"X-{number}: {SECRET}" for number in range(40_000)), "too many headers"),
    ],
    ids=["twice", "text", "large", "both", "nul", "name", "no colon", "long", "many"],
)
async def test_fault_of_an_answers_head_as_the_parser_says_it(line: str, words: str) -> None:
    """The words of the installed parser are known, and no byte of a value is repeated."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n12345".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, aiohttp.ClientSession(max_field_size=131072) as session:
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            await session.get(url)
    fault = header_fault(refused.value.message)
    assert fault is not None
    assert words in fault
    assert SECRET not in fault


@pytest.mark.parametrize(
    "message", ["", "Bad status line 'SSH-2.0'", "Expected HTTP/, RTSP/ or ICE/:\n\n  b'X: y'", "Data after"]
)
def test_other_faults_are_no_headers(message: str) -> None:
    """A message that is no HTTP at all has no header to name."""
    assert header_fault(message) is None


def test_header_is_found_in_the_head() -> None:
    """The head has the name where the parser has none; a name that looks like none is not repeated."""
    head = f"GET / HTTP/1.1\r\nHost: x\r\nX-Odd: {SECRET}\x00\r\n\r\n".encode()
    assert header_fault("Invalid HTTP header: b''", head) == (
        "the header X-Odd has a control character in its value"
    )
    head = f"GET / HTTP/1.1\r\nX-Long: {SECRET * 20}\r\n\r\n".encode()
    assert header_fault("Got more than 100 bytes when reading: b''", head) == (
        "the header X-Long is longer than 100 bytes"
    )
    odd = header_fault("Invalid HTTP header: b''", f"GET / HTTP/1.1\r\n{SECRET} y: \x00\r\n\r\n".encode())
    assert odd == "a header has a control character in its value"
