"""Reading of a PROXY header from a socket that asyncio does not have yet: nothing behind it is taken."""

import asyncio
import socket

from mirror.access.proxy_protocol import (
    MOST_BYTES,
    ProxiedClient,
    ProxyHeaderError,
    header_length,
    parse_header,
)

# Enough of a connection to tell what begins here.
BEGINNING = 16

# The first byte of TLS (a handshake record): such a client cannot read an HTTP response.
TLS_RECORD = b"\x16"

REFUSAL = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    "Content-Length: {}\r\n\r\n{}"
)


class ClientLeft(ConnectionError):
    """The client ended the connection before its first byte."""


async def read_header(connection: socket.socket) -> ProxiedClient | None:
    """Read a PROXY header; return the client that it names, if any.

    Raises ProxyHeaderError, and ConnectionError if the other end has left. The caller limits the time.
    """
    header = b""
    while True:
        try:
            found = await peek(connection, MOST_BYTES - len(header))
        except ClientLeft:
            if header:
                raise ProxyHeaderError("the connection ended within the PROXY header") from None
            raise
        length = header_length(header + found)
        if length is not None:
            return parse_header(header + connection.recv(length - len(header)))
        header += connection.recv(len(found))


async def peek(connection: socket.socket, size: int = BEGINNING) -> bytes:
    """Wait for bytes and return them, without taking them. Raises ClientLeft, or ConnectionError."""
    while True:
        await _readable(connection)
        try:
            found = connection.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if not found:
            raise ClientLeft
        return found


def refuse(connection: socket.socket, reason: str) -> None:
    """Answer 400 to what may be HTTP, and close the connection."""
    try:
        # A connection that is closed with unread bytes is reset, which can take the answer from the client.
        if not connection.recv(MOST_BYTES).startswith(TLS_RECORD):
            connection.send(REFUSAL.format(len(reason) + 1, f"{reason}\n").encode())
            connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    finally:
        connection.close()


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not came.done():
            came.set_result(None)

    loop.add_reader(connection, note)
    try:
        await came
    finally:
        loop.remove_reader(connection)
