"""Faults: deviations from a correct answer, as values that a test hands to a fake."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field


class Gate:
    """Point in an answer where the fake waits. `await gate.reached.wait()`, then `gate.release()`."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.waiting = 0  # number of answers that wait now; one whose connection ends waits no longer
        self._open = asyncio.Event()

    def release(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        self.reached.set()
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One deviation. Fields combine: `Fault(hold=gate, after=10, cut_at=20)` waits at 10 and breaks at 20.

    status        answer this status, with `body` and `headers`
    data          these bytes in place of the right ones (longer, shorter, or flipped)
    cut_at        close the connection, with FIN, after that many bytes of the body, announced longer
    reset_at      the same, with RST
    hold, after   wait at the gate after that many bytes of the body; -1: before the answer's head
    raw           write these bytes, head and all, and close
    drip          seconds after each piece of the body, or each byte of `raw`; pieces are of one byte then
    headers       added to the right answer too; a header with an empty value is removed
    no_ranges     answer 200 with everything to a range request
    chunked       without Content-Length
    cdn           for the second server, where blobs are redirected to
    """

    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes | None = None
    cut_at: int | None = None
    reset_at: int | None = None
    hold: Gate | None = None
    after: int = 0
    raw: bytes | None = None
    drip: float = 0.0
    no_ranges: bool = False
    chunked: bool = False
    cdn: bool = False


NO_FAULT = Fault()


@dataclass(slots=True)
class Planned:
    """Fault for the next `times` requests whose method fits and whose path contains `match`."""

    fault: Fault
    match: str
    method: str | None
    times: int

    def fits(self, method: str, path: str, cdn: bool) -> bool:
        here = self.times > 0 and self.fault.cdn == cdn
        return here and self.match in path and self.method in (None, method)


def flipped(data: bytes, at: int = 0) -> bytes:
    """Return `data` with one wrong byte, of the same length."""
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def oci_error(code: str, message: str) -> bytes:
    """Return an error document as registries send it."""
    return f'{{"errors":[{{"code":"{code}","message":"{message}"}}]}}'.encode()
