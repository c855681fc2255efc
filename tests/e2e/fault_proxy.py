"""Proxy in front of an origin that injects faults on command: a program of its own.

    fault_proxy.py CONTROL ADDRESS DOOR=PORT:HOST:PORT ...

Each door is a port of ADDRESS and leads to HOST:PORT. CONTROL is a Unix socket, which reaches into a network
namespace even when the firewall there drops everything: a line of JSON with a command is answered by a line
with the requests that have passed.

The program is also a name server that knows no name.

The proxy knows as much HTTP/1.1 as it needs: requests without a body, and the length of response bodies. It
signs the URLs that the registry redirects to, and the CDN's door refuses expired signatures.
"""

import asyncio
import contextlib
import itertools
import json
import re
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

# Small, so that bytes sent are bytes received, but for a few pieces.
BUFFER = 64 * 1024
PIECE = 16 * 1024
# The most that a reset can destroy: the system doubles SO_SNDBUF (socket(7)).
ON_ITS_WAY = 2 * BUFFER + 2 * PIECE
BEFORE = -1  # no byte is sent, not even of the head

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LOCATION = re.compile(rb"(?i)(\r\nlocation: *[^\r\n]+)")
TOKEN = re.compile(rb"(?i)(\r\nauthorization: *)([^\r\n]+)")
KEEP_ALIVE = re.compile(rb"(?i)\r\n(connection|keep-alive):[^\r\n]*")
RANGE = re.compile(rb"(?i)\r\nrange: *bytes=([^\r\n]+)")
SIGNATURE = re.compile(r"[?&]signature=(\d+)")

EXPIRED_URL = (
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
)


@dataclass(frozen=True)
class Fault:
    """Fault of the next `times` (None: all) responses at `door` whose target contains `match`.

    The first `skip` of these responses pass unharmed.

    status        answer `status` with `headers` instead
    cut, reset    end with FIN or RST after `at` bytes of the body
    stall         send no more after `at` bytes of the body
    corrupt       flip byte `at` of the body
    throttle      send `rate` bytes a second
    expire_token  the token of this request expires
    expire_url    the signature of this request's URL expires

    A response whose body ends before `at` does not count.
    """

    what: str
    at: int = BEFORE
    door: str = ""
    match: str = ""
    times: int | None = None
    skip: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    rate: int = 0

    @property
    def early(self) -> bool:
        """Tell whether the fault comes before the origin is asked."""
        return self.what != "throttle" and self.at == BEFORE

    def fits(self, door: str, target: str, length: int | None) -> bool:
        if self.door not in ("", door) or self.match not in target:
            return False
        return self.early if length is None else not self.early and self.at < length


class FaultInjected(Exception):
    """End of the connection, caused by a fault."""


@dataclass
class Passage:
    """One request and its fate: `sent` counts bytes of the body, `asked` is the requested range."""

    door: str
    method: str
    target: str
    asked: str = ""
    status: int = 0
    sent: int = 0
    faults: list[str] = field(default_factory=list)


class Planned:
    """Fault with the number of responses that fitted it so far."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._seen = 0

    def is_due(self) -> bool:
        self._seen += 1
        number = self._seen - self.fault.skip
        return number > 0 and (self.fault.times is None or number <= self.fault.times)


class Faults:
    """List of planned faults, with the number of times still due."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._planned = [Planned(fault) for fault in faults]

    def take(self, passage: Passage, length: int | None = None) -> Fault | None:
        """Return the fault for this response; `length` of its body, None before the origin is asked."""
        for planned in self._planned:
            if planned.fault.fits(passage.door, passage.target, length) and planned.is_due():
                passage.faults.append(planned.fault.what)
                return planned.fault
        return None


class Proxy:
    """All doors, which share one list of faults."""

    def __init__(self) -> None:
        self._faults = Faults([])
        self._passages: list[Passage] = []
        self._clients: set[asyncio.StreamWriter] = set()
        self._expired: set[bytes | str] = set()
        self._signatures = itertools.count(1)

    async def open(self, address: str, door: str, port: int, origin: tuple[str, int]) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._clients.add(writer)
            writer.transport.set_write_buffer_limits(high=PIECE)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, FaultInjected):
                while await self._exchange(door, origin, reader, writer):
                    pass
            self._clients.discard(writer)
            writer.close()

        listener = socket.create_server((address, port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        await asyncio.start_server(serve, sock=listener)

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Obey one line: replace the faults, end all connections. Answer with the requests so far."""
        order: dict[str, Any] = json.loads(await reader.readline())
        if "faults" in order:
            self._faults = Faults(Fault(**fault) for fault in order["faults"])
        if order.get("hang_up"):
            for client in self._clients:
                client.transport.abort()
        passages = self._passages[order.get("since", 0) :]
        writer.write(json.dumps([asdict(each) for each in passages]).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def _exchange(
        self, door: str, origin: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Pass on one request and its response. Return whether the connection can take another request."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target = head.split(b" ", 2)[:2]
        asked = RANGE.search(head)
        passage = Passage(door, method.decode(), target.decode(), asked[1].decode() if asked else "")
        self._passages.append(passage)
        if (fault := self._faults.take(passage)) is not None:
            await self._early(fault, passage, head, reader, writer)
        if passage.status or self._is_expired(target.decode()):
            passage.status = passage.status or 403
            headers = fault.headers if fault and fault.what == "status" else {}
            writer.write(_answer(passage.status, headers, passage.method))
            await writer.drain()
            return True
        back, forth = await asyncio.open_connection(*origin)
        try:
            forth.write(self._request(head))
            return await self._answer(passage, back, reader, writer)
        finally:
            forth.close()

    async def _early(
        self,
        fault: Fault,
        passage: Passage,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        match fault.what:
            case "status":
                passage.status = fault.status
            case "expire_token":
                self._expired.update(found[2] for found in TOKEN.finditer(head))
            case "expire_url":
                self._expired.update(SIGNATURE.findall(passage.target))
            case _:
                await _inject(fault, reader, writer)

    def _is_expired(self, target: str) -> bool:
        return not self._expired.isdisjoint(SIGNATURE.findall(target))

    def _request(self, head: bytes) -> bytes:
        """Return the head to send on: one request per connection, and an invalid token for an expired one."""
        token = TOKEN.search(head)
        if token is not None and token[2] in self._expired:
            head = TOKEN.sub(rb"\1Bearer expired", head)
        return KEEP_ALIVE.sub(b"", head).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def _answer(
        self,
        passage: Passage,
        back: asyncio.StreamReader,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        head = await back.readuntil(b"\r\n\r\n")
        passage.status = int(head.split(b" ", 2)[1])
        announced = LENGTH.search(head)
        length = int(announced[1]) if announced else 0
        bodiless = passage.method == "HEAD" or passage.status in (204, 304)
        fault = self._faults.take(passage, 0 if bodiless else length)
        if passage.status in (301, 302, 307):
            head = LOCATION.sub(rb"\1?signature=%d" % next(self._signatures), head)
        keep = bodiless or announced is not None
        if keep:
            head = KEEP_ALIVE.sub(b"", head)
        writer.write(head)
        await writer.drain()
        if bodiless:
            return True
        while data := await back.read(_piece(fault)):
            await _pass_on(data, passage, fault, (reader, writer))
        return keep and passage.sent == length


def _piece(fault: Fault | None) -> int:
    return max(fault.rate // 20, 1) if fault and fault.what == "throttle" else PIECE


async def _pass_on(
    data: bytes,
    passage: Passage,
    fault: Fault | None,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Send a piece of the body, or the part of it that the fault leaves."""
    reader, writer = client
    start, stop = passage.sent, passage.sent + len(data)
    here = fault is not None and start <= fault.at < stop
    if fault is not None and fault.what == "throttle":
        await asyncio.sleep(len(data) / fault.rate)
    elif fault is not None and here and fault.what == "corrupt":
        at = fault.at - start
        data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
    elif fault is not None and here:
        data = data[: fault.at - start]
    writer.write(data)
    await writer.drain()
    passage.sent += len(data)
    if fault is not None and here:
        await _inject(fault, reader, writer)


async def _inject(fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the connection, or wait until the client does. Raise FaultInjected if the fault ends it."""
    if fault.what == "stall":
        await reader.read(1)
    elif fault.what == "reset":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    elif fault.what != "cut":
        return
    raise FaultInjected


def _answer(status: int, headers: dict[str, str], method: str) -> bytes:
    body = b"" if method == "HEAD" else EXPIRED_URL if status == 403 else b"fault\n"
    lines = [f"HTTP/1.1 {status} Fault", "Content-Type: text/plain", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class NoNames(asyncio.DatagramProtocol):
    """Name server for which no name exists (RFC 1035, 4.1.1: QR, RD and RA, RCODE 3)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(data[:2] + b"\x81\x83" + data[4:], address)


async def main(control: str, address: str, *doors: str) -> None:
    proxy = Proxy()
    for each in doors:
        door, _, places = each.partition("=")
        port, host, behind = places.split(":")
        await proxy.open(address, door, int(port), (host, int(behind)))
    await asyncio.get_running_loop().create_datagram_endpoint(NoNames, (address, 53))
    server = await asyncio.start_unix_server(proxy.obey, control)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
