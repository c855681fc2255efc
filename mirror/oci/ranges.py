"""Byte ranges (RFC 9110 section 14), as registry clients use them."""

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from mirror.oci.errors import Code, RegistryError

RANGE = re.compile(r"[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*")
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")

# Largest size that files and the index can hold.
LARGEST = 2**63 - 1

# Podman's zstd:chunked merges what it misses until at most 1024 ranges are left (containers/storage,
# maxNumberMissingChunks). No known client sends more; a request with more ranges gets the whole content.
MAX_RANGES = 1024

# Longest Range header that is parsed, in bytes: as many ranges with the longest numbers.
HEADER_BYTES = MAX_RANGES * 41

# Bytes by which a multipart body may be longer than the whole: the heads of a hundred parts.
MULTIPART_SURPLUS_BYTES = 16 * 1024

# Bytes of a part's head without the three numbers of its Content-Range.
PART_HEAD_BYTES = 105


class Span(Struct, frozen=True, order=True):
    """A byte range from `start` up to, and excluding, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Return the Content-Range of this part of `size` bytes. It has the total: dockerd fails on `/*`."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(header: str, size: int) -> list[Span]:
    """Return the spans that a Range header requests of `size` bytes, in the requested order.

    An empty list means: serve the whole with 200. The list is empty for a malformed or overlong header, for
    several ranges of which one cannot be satisfied, for ranges that together exceed the whole (RFC 9110 14.2:
    overlapping ranges may be an attack), and for so many ranges that with the heads of its parts a multipart
    body would be longer than the whole. A single unsatisfiable range raises RegistryError RANGE_INVALID
    (416); several ranges never do, because podman gives up the pull at a 416. A range that ends before it
    begins counts as unsatisfiable: RFC 9110 14.1.1 would ignore such a range, but the OCI conformance suite
    expects 416.
    """
    if len(header) > HEADER_BYTES or header.count(",") >= MAX_RANGES:
        return []
    unit, separator, specification = header.partition("=")
    if unit.strip().lower() != "bytes" or not separator:
        return []
    matches = [RANGE.fullmatch(each) for each in specification.split(",")]
    spans: list[Span] = []
    for match in matches:
        if match is None or not (match[1] or match[2]):
            return []
        spans.append(_resolve(match[1], match[2], size))
    if len(spans) == 1:
        return [_satisfiable(spans[0], size)]
    content = sum(span.length for span in spans)
    if any(span.length <= 0 for span in spans) or content > size:
        return []
    heads = len(spans) * (PART_HEAD_BYTES + 3 * len(str(size)))
    return spans if content + heads <= size + MULTIPART_SURPLUS_BYTES else []


def parse_content_range(header: str) -> tuple[Span, int | None]:
    """Return the span and the total size (None for `*`) of a 206. Raises ValueError for impossible ones."""
    match = CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise ValueError(f"not a Content-Range: {header[:100]!r}")
    span = Span(int(match[1]), int(match[2]) + 1)
    size = None if match[3] == "*" else int(match[3])
    if span.length <= 0 or (size is not None and span.stop > size) or max(span.stop, size or 0) > LARGEST:
        raise ValueError(f"impossible Content-Range: {header[:100]!r}")
    return span, size


def multipart(spans: Sequence[Span], size: int, content_type: str, boundary: str) -> list[bytes | Span]:
    """Return a multipart/byteranges body (RFC 9110 14.6): boundaries as bytes, content as spans."""
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
    """Return the length in bytes of a body made of `parts`."""
    return sum(len(part) if isinstance(part, bytes) else part.length for part in parts)


def _resolve(first: str, last: str, size: int) -> Span:
    """Return the span, clamped to `size`. An unsatisfiable range has no length."""
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
