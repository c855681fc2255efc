"""Writing of a body with everything that a Fault asks for."""

import asyncio
import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from tests.fakes.faults import Fault
from tests.fakes.site import ANSWERED, hang_up


@dataclass(frozen=True, slots=True)
class Answer:
    """Correct answer, before faults."""

    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


async def write(
    request: web.BaseRequest, answer: Answer, fault: Fault, piece: int | None = None
) -> web.StreamResponse:
    """Send `answer` as changed by `fault`, in pieces of `piece` bytes (None: in one)."""
    if fault.hold is not None and fault.after < 0:
        await fault.hold.wait()
    if fault.raw is not None:
        await _raw(request, fault.raw, fault.drip)
    response = web.StreamResponse(status=answer.status, headers=_headers(answer, fault))
    if fault.chunked:
        response.enable_chunked_encoding()
    else:
        response.content_length = len(answer.data)
    await response.prepare(request)
    if request.method != "HEAD":
        await _body(request, response, answer.data, fault, piece)
    await response.write_eof()
    return response


def _headers(answer: Answer, fault: Fault) -> dict[str, str]:
    merged = {**answer.headers, **fault.headers}
    return {name: value for name, value in merged.items() if value}


async def _raw(request: web.BaseRequest, data: bytes, drip: float) -> None:
    for part in [bytes([byte]) for byte in data] if drip else [data]:
        if request.transport is not None:
            request.transport.write(part)
        await asyncio.sleep(drip)
    await hang_up(request)


async def _body(
    request: web.BaseRequest, response: web.StreamResponse, data: bytes, fault: Fault, piece: int | None
) -> None:
    offset = 0
    for stop in _stops(len(data), fault, piece):
        await response.write(data[offset:stop])
        offset = stop
        ANSWERED.get().sent = offset
        if fault.drip:
            await asyncio.sleep(fault.drip)
        if fault.hold is not None and offset == fault.after:
            await fault.hold.wait()
        if offset in (fault.cut_at, fault.reset_at):
            await hang_up(request, reset=fault.reset_at is not None)


def _stops(size: int, fault: Fault, piece: int | None) -> Iterator[int]:
    """Return offsets up to which to write, in order; the offsets of the fault are among them."""
    marks = {fault.after if fault.hold else None, fault.cut_at, fault.reset_at}
    known = sorted(mark for mark in marks if mark is not None and 0 <= mark < size)
    step = piece or (1 if fault.drip else max(size, 1))
    ends = heapq.merge(range(step, size, step), known)
    yield from (end for end, _ in itertools.groupby(ends))
    yield size
