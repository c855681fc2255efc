"""Body of a blob on its way from an upstream."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from msgspec import Struct

from mirror.oci.ranges import LARGEST, Span, parse_content_range
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.transport import PartReader, Response
from mirror.upstream.media_types import is_page, media_type

_COMPRESSED = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})


class BodyContent(Protocol):
    """The bytes of a body, which are read once, in one of two ways.

    Of an upstream's answer: `upstream.http.transport.ResponseContent`.
    """

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes as they arrive; raise UpstreamError when they break off."""
        ...

    def direct_reader(self) -> PartReader | None:
        """Return a reader straight from the socket, in place of `chunks`; None where only `chunks` works.

        The reader raises UpstreamError as `chunks` does, but not for a body that is shorter than asked for:
        the caller counts.
        """
        ...


class BodyReaders(Struct, frozen=True):
    """Content of a body that comes from elsewhere than a socket, by two functions: see BodyContent."""

    chunks: Callable[[], AsyncGenerator[bytes, None]]
    direct_reader: Callable[[], PartReader | None]


class BlobBody:
    """Bytes of a blob from `start` on.

    `total` is the size of the whole blob, None if the source does not tell it. `whole` is true if the source
    sends the whole blob, perhaps although a range was asked for. `encoding` is the Content-Encoding that the
    bytes are labelled with, empty for none: it is no reason to refuse them, since the digest decides.
    `chunked`: the body tells its own end, so that one without a length is not broken where it ends.
    `page`: the body is labelled as a web page, which is a reason to doubt an answer of which no byte is read.
    """

    encoding = ""
    chunked = False
    page = False

    def __init__(
        self, name: str, content: BodyContent, span: tuple[int, int | None], total: int | None, *, whole: bool
    ) -> None:
        start, stop = span
        self.start = start
        self.total = total
        self.whole = whole
        self._name = name
        self.content = content
        self._length = None if stop is None else stop - start

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes as they arrive, once.

        Raise UpstreamError: UNREACHABLE or TIMEOUT if the body breaks, or ends before the end of what was
        asked for and exists. What is longer than announced is left out: the digest decides.
        """
        received = 0
        async with contextlib.aclosing(self.content.chunks()) as chunks:
            async for chunk in chunks:
                left = len(chunk) if self._length is None else self._length - received
                received += min(left, len(chunk))
                yield chunk[:left]
                if received == self._length:
                    return
        if self._length is not None and received < self._length:
            message = f"{self._name}: the body ended after {received} of {self._length} bytes"
            raise UpstreamError(Failure.UNREACHABLE, message)


def blob_body(name: str, response: Response, asked: Span | None, content: BodyContent) -> BlobBody:
    """Return the body of a 200 or 206 answer. `asked` is the requested range, None for the whole blob."""
    body = _body(name, response, asked, content)
    body.encoding, body.chunked = content_encoding(response), "Transfer-Encoding" in response.headers
    body.page = is_page(media_type(response.headers.get("Content-Type")))
    return body


def content_encoding(response: Response) -> str:
    """Return the Content-Encoding that was not asked for, empty for none, for a message."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()[:20]
    return "" if encoding == "identity" else encoding


def content_length(name: str, response: Response) -> int | None:
    """Return the Content-Length, which does not count beside a Transfer-Encoding (RFC 9112 6.3).

    Raises UpstreamError INVALID for one above 63 bits, which aiohttp's parser in Python lets through.
    """
    length = None if "Transfer-Encoding" in response.headers else response.content_length
    if length is not None and length > LARGEST:
        raise UpstreamError(Failure.INVALID, f"{name}: a Content-Length that is too large a number")
    return length


def labelled(encoding: str) -> str:
    """Return the words for a message about wrong bytes."""
    return f", labelled Content-Encoding {encoding!r}, which was not asked for" if encoding else ""


def _body(name: str, response: Response, asked: Span | None, content: BodyContent) -> BlobBody:
    if response.status == 200 and (asked is None or not _is_part(response)):
        total = content_length(name, response)
        return BlobBody(name, content, (0, total), total, whole=True)
    span, total = _content_range(name, response)
    if content_encoding(response) in _COMPRESSED and asked is not None and asked.start == 0:
        # The range may be one of the compressed bytes; a plain request shows.
        raise UpstreamError(Failure.INVALID, f"{name}: a compressed part was not asked for", status=206)
    if response.status == 200 or asked is None or span.start != asked.start or span.stop > asked.stop:
        message = f"{name}: asked for {_words(asked)}, sent {_words(span)} with status {response.status}"
        raise UpstreamError(Failure.INVALID, message, status=206)
    # The source may send less than asked for although more exists: chunks() then ends as a broken body does,
    # and the download is resumed.
    stop = min(asked.stop, total) if total is not None else span.stop
    return BlobBody(name, content, (span.start, stop), total, whole=False)


def _is_part(response: Response) -> bool:
    """Return whether an answer with status 200 says that it has a part only."""
    try:
        span, total = parse_content_range(response.headers.get("Content-Range", ""))
    except ValueError:
        return False
    return span.length != total


def _content_range(name: str, response: Response) -> tuple[Span, int | None]:
    try:
        if response.content_type.startswith("multipart/"):
            raise ValueError("several parts")
        span, total = parse_content_range(response.headers.get("Content-Range", ""))
    except ValueError:
        message = f"{name}: a partial answer without a valid Content-Range"
        raise UpstreamError(Failure.INVALID, message, status=206) from None
    length = content_length(name, response)
    if (length is not None and length != span.length) or (total is not None and span.stop > total):
        message = f"{name}: a partial answer whose Content-Range and Content-Length disagree"
        raise UpstreamError(Failure.INVALID, message, status=206)
    return span, total


def _words(span: Span | None) -> str:
    return "the whole blob" if span is None else f"bytes from {span.start} to {span.stop - 1}"
