"""Byte ranges: RFC 9110 section 14, as registry clients use them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mirror.oci.errors import Code, RegistryError

ONE = re.compile(r"[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*")
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")

# Podman's zstd:chunked asks for hundreds of ranges in a header of up to 32 KiB, in which no more than
# this many fit. A request for more is not from any client there is: it gets the whole.
MOST_RANGES = 8192


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes `start` up to, and not with, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """The Content-Range of this part of `size` bytes; clients need the number, `/*` fails dockerd."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(header: str, size: int) -> list[Span]:
    """What a Range header asks for, of `size` bytes, in the order asked.

    Empty means: serve the whole with 200. That is for what is not understood, and for several ranges of
    which one cannot be satisfied or which together exceed the whole (RFC 9110 14.2: overlapping ranges may
    be an attack). A single range that cannot be satisfied raises RegistryError RANGE_INVALID (416);
    several never do, because podman gives up the pull at a 416. A range that ends before it begins counts as
    unsatisfiable: RFC 9110 14.1.1 would have it ignored, the OCI conformance suite wants the 416.
    """
    unit, separator, specification = header.partition("=")
    if unit.strip().lower() != "bytes" or not separator:
        return []
    asked = [ONE.fullmatch(each) for each in specification.split(",")[: MOST_RANGES + 1]]
    if len(asked) > MOST_RANGES:
        return []
    spans: list[Span] = []
    for match in asked:
        if match is None or not (match[1] or match[2]):
            return []
        spans.append(_resolve(match[1], match[2], size))
    if len(spans) == 1:
        return [_satisfiable(spans[0], size)]
    if any(span.length <= 0 for span in spans) or sum(span.length for span in spans) > size:
        return []
    return spans


def parse_content_range(header: str) -> tuple[Span, int | None]:
    """The part and the whole size (None for `*`) that a 206 announces. ValueError when it makes no sense."""
    match = CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise ValueError(f"not a Content-Range: {header[:100]!r}")
    span = Span(int(match[1]), int(match[2]) + 1)
    size = None if match[3] == "*" else int(match[3])
    if span.length <= 0 or (size is not None and span.stop > size):
        raise ValueError(f"impossible Content-Range: {header[:100]!r}")
    return span, size


def multipart(spans: Sequence[Span], size: int, content_type: str, boundary: str) -> list[bytes | Span]:
    """A multipart/byteranges body (RFC 9110 14.6): part heads and the tail as bytes, content as Span."""
    parts: list[bytes | Span] = []
    for index, span in enumerate(spans):
        lead = "" if index == 0 else "\r\n"
        head = (
            f"{lead}--{boundary}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Range: {span.content_range(size)}\r\n\r\n"
        )
        parts += [head.encode("ascii"), span]
    return [*parts, f"\r\n--{boundary}--\r\n".encode("ascii")]


def total_length(parts: Iterable[bytes | Span]) -> int:
    """Bytes of a body made of these parts."""
    return sum(len(part) if isinstance(part, bytes) else part.length for part in parts)


def _resolve(first: str, last: str, size: int) -> Span:
    """The span, clamped to the size; of no length when nothing of it is there."""
    if not first:
        return Span(max(size - int(last), 0), size)
    start = min(int(first), size)
    return Span(start, size if not last else min(int(last) + 1, size))


def _satisfiable(span: Span, size: int) -> Span:
    if span.length > 0:
        return span
    raise RegistryError(
        Code.RANGE_INVALID,
        f"the range begins at or after the end: the content is {size} bytes",
        headers={"Content-Range": f"bytes */{size}"},
    )
