"""The body of a blob on its way in."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from mirror.oci.ranges import Span, parse_content_range
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.transport import PartReader, Response


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The two ways to the bytes of a body, of which one is taken, once.

    As they come in; or, where that is possible and pays, straight from the socket.
    """

    chunks: Callable[[], AsyncGenerator[bytes, None]]
    direct_reader: Callable[[], PartReader | None]


class BlobBody:
    """Some bytes of a blob from `start` on. `total`: the size of the whole blob, None if the source hides it.

    `whole`: the source sends everything, perhaps though a range was asked for.
    """

    def __init__(
        self, name: str, reading: ReadOptions, span: tuple[int, int | None], total: int | None, *, whole: bool
    ) -> None:
        start, stop = span
        self.start = start
        self.total = total
        self.whole = whole
        self._name = name
        self._reading = reading
        self._length = None if stop is None else stop - start

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes as they come in, once.

        UpstreamError: UNREACHABLE or TIMEOUT when the body breaks or ends before what was asked and exists;
        INVALID when it is longer than announced.
        """
        received = 0
        async with contextlib.aclosing(self._reading.chunks()) as pieces:
            async for piece in pieces:
                received += len(piece)
                if self._length is not None and received > self._length:
                    raise UpstreamError(Failure.INVALID, f"{self._name}: more bytes than announced")
                yield piece
        if self._length is not None and received < self._length:
            message = f"{self._name}: the body ended after {received} of {self._length} bytes"
            raise UpstreamError(Failure.UNREACHABLE, message)

    def direct_reader(self) -> PartReader | None:
        """The bytes straight from the socket, once, instead of by `chunks`; None where that has to do.

        UpstreamError as there, but not when less was sent than was asked for: who takes it counts.
        """
        return self._reading.direct_reader()


def blob_body(name: str, response: Response, asked: Span | None, reading: ReadOptions) -> BlobBody:
    """The body of a 200 or 206 answer. `asked`: the range asked for, None for everything."""
    if response.status == 200:
        total = response.content_length
        return BlobBody(name, reading, (0, total), total, whole=True)
    span, total = _answered(name, response)
    if asked is None or span.start != asked.start or span.stop > asked.stop:
        message = f"{name}: asked for {_words(asked)}, sent {_words(span)}"
        raise UpstreamError(Failure.INVALID, message, status=206)
    # Less than asked for and than there is: chunks() then ends as a broken body, to be continued.
    stop = min(asked.stop, total) if total is not None else span.stop
    return BlobBody(name, reading, (span.start, stop), total, whole=False)


def _answered(name: str, response: Response) -> tuple[Span, int | None]:
    try:
        span, total = parse_content_range(response.headers.get("Content-Range", ""))
    except ValueError:
        message = f"{name}: a partial answer without a valid Content-Range"
        raise UpstreamError(Failure.INVALID, message, status=206) from None
    length = response.content_length
    if (length is not None and length != span.length) or (total is not None and span.stop > total):
        message = f"{name}: a partial answer whose Content-Range and Content-Length disagree"
        raise UpstreamError(Failure.INVALID, message, status=206)
    return span, total


def _words(span: Span | None) -> str:
    return "the whole blob" if span is None else f"bytes from {span.start} to {span.stop - 1}"
