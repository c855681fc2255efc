"""Client that sends the bytes of a case on one connection, and reads what comes back."""

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.fuzz.cases import Case, Way

# Time without a byte, in seconds, after which the next answer counts as missing; longer than any limit of the
# mirror here. A body whose upstream drips may take longer as a whole.
PATIENCE = 40.0

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ?[^\r\n]*")


@dataclass(frozen=True)
class Response:
    """One response. `complete`: the body has the announced length."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    complete: bool = True

    def header(self, name: str) -> str:
        """Return the value of a header, empty if it is not there."""
        return next((value for each, value in self.headers if each == name), "")


@dataclass(frozen=True)
class Heard:
    """Answers of one connection. `end`: how it ended, `trouble`: bytes that are no response."""

    responses: tuple[Response, ...]
    end: str  # "open", "closed", "reset", "silent"
    trouble: str = ""

    @property
    def statuses(self) -> list[int]:
        return [each.status for each in self.responses]


class _Wire(asyncio.Protocol):
    """Connection that collects what arrives, and wakes its reader."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.received = bytearray()
        self.end = "open"
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()

    def eof_received(self) -> None:
        self.end = "closed"
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.end == "open":
            self.end = "closed" if exc is None else "reset"
        self.changed.set()


class Conversation:
    """One run of a case against one mirror."""

    def __init__(self, case: Case, wire: _Wire, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._case = case
        self._wire = wire
        self._responses: list[Response] = []
        self._offset = 0

    @classmethod
    async def hold(cls, case: Case, host: str, port: int) -> Heard:
        """Connect, send, read, close."""
        wire = _Wire()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: wire, host, port)
        try:
            async with asyncio.timeout(PATIENCE) as limit:
                return await cls(case, wire, limit)._run()
        except TimeoutError:
            return Heard(tuple(cls._parsed_whole(case, wire)), "silent")
        finally:
            transport.abort() if wire.end == "open" else transport.close()

    @staticmethod
    def _parsed_whole(case: Case, wire: _Wire) -> list[Response]:
        self = Conversation(case, wire, asyncio.timeout(None))
        self._read_all()
        return self._responses

    async def _run(self) -> Heard:
        case, requests = self._case, self._case.requests
        if case.way is Way.IN_TURN:
            for request in requests:
                self._write(request.data)
                if not await self._read_one(request.method):
                    break
                if self._responses[-1].header("connection") == "close":
                    break
        else:
            await self._send_all()
            if case.damaged:
                await self._until_end()
                self._read_all()
            else:
                if case.way is Way.HALF_CLOSED:
                    await self._until_end()
                for request in requests:
                    if not await self._read_one(request.method):
                        break
        # Bytes behind the last response belong to no request.
        surplus = bytes(self._wire.received[self._offset : self._offset + 60])
        trouble = f"bytes that are no response: {surplus!r}" if surplus else ""
        return Heard(tuple(self._responses), self._wire.end, trouble)

    def _write(self, data: bytes) -> None:
        transport = self._wire.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    async def _send_all(self) -> None:
        data, way = self._case.data(), self._case.way
        for piece in pieces(data, way, self._case.cuts):
            self._write(piece)
            if way in (Way.SPLIT, Way.BYTES):
                await asyncio.sleep(0)
        transport = self._wire.transport
        if way is Way.HALF_CLOSED and transport is not None and not transport.is_closing():
            transport.write_eof()

    async def _more(self) -> bool:
        """Wait for bytes, or for the end; return whether bytes may still come."""
        if self._wire.end != "open":
            return False
        self._wire.changed.clear()
        await self._wire.changed.wait()
        self._limit.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        return True

    async def _until_end(self) -> None:
        while await self._more():
            pass

    async def _read_one(self, method: str) -> bool:
        """Read the next response; return False if the connection ended before its head or within its body."""
        while True:
            if self._take(method, final=self._wire.end != "open"):
                return self._responses[-1].complete
            if not await self._more():
                return False

    def _read_all(self) -> None:
        """Read what came for damaged requests: of a right one in front of them the method is known."""
        first = self._case.requests[0]
        method = "?" if first.expected is None else first.method
        while self._take(method, final=True):
            method = "?"

    def _take(self, method: str, *, final: bool) -> bool:
        """Parse one response from what has arrived. `method` "?": not known. `final`: nothing more comes."""
        received, start = self._wire.received, self._offset
        stop = received.find(b"\r\n\r\n", start)
        if stop < 0:
            return False
        line, *fields = bytes(received[start:stop]).split(b"\r\n")
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            return False
        status, body = int(match[1]), stop + 4
        if status < 200:
            self._offset = body
            return self._take(method, final=final)
        headers = tuple(_pair(field) for field in fields)
        length = _length(status, headers)
        if method == "HEAD" or (method == "?" and _is_headless(received, body, length)):
            length = 0
        if len(received) - body < length and not final:
            return False
        data = bytes(received[body : body + length])
        self._offset = body + len(data)
        self._responses.append(Response(status, headers, data, len(data) == length))
        return True


def pieces(data: bytes, way: Way, seed: int) -> Sequence[bytes]:
    """Return the writes that `data` is sent with."""
    if way is Way.BYTES:
        return [data[place : place + 1] for place in range(len(data))]
    if way is not Way.SPLIT:
        return [data]
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randint(1, 12)))
    return [
        data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True) if stop > start
    ]


def _is_headless(received: bytearray, body: int, length: int) -> bool:
    """Tell whether a response without a body came: an answer to HEAD, by what stands behind it."""
    return bool(length) and (len(received) == body or received.startswith(b"HTTP/1.", body))


def _pair(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("latin-1").partition(":")
    return name.lower(), value.strip()


def _length(status: int, headers: Sequence[tuple[str, str]]) -> int:
    if status in (204, 304):
        return 0
    text = next((value for name, value in headers if name == "content-length"), "0")
    return int(text) if text.isdigit() else 0
