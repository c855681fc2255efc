"""Decoder of bodies with `Transfer-Encoding: chunked` (RFC 9112 7.1), without copies of what they carry.

It takes what the grammar has and nothing else: no bare line feed, no space in front of a size, and a bounded
number of bytes of extensions and trailers. What follows the last chunk is the next request of the connection,
so that there must be one reading of a body, and no second one.
"""

import re
from enum import Enum, auto

# The size of a chunk, and an extension, which is ignored.
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?\r\n")

# What is between two chunks of nearly all clients.
BETWEEN = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})\r\n")

# A header line behind the last chunk, which is ignored.
TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n")

# Longest line, and the most bytes of all trailers.
LINE_BYTES = 1024
TRAILER_BYTES = 8 * 1024

CRLF = b"\r\n"


class WrongChunk(ValueError):
    """A body that is not what the grammar has."""


class _Expected(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    NOTHING = auto()


class ChunkedDecoder:
    """Decoder of one body."""

    __slots__ = ("_expected", "_left", "_line", "_trailers")

    def __init__(self) -> None:
        self._expected = _Expected.SIZE
        self._left = 0  # bytes of the chunk that are still to come
        self._line = b""  # the beginning of a line that is not whole
        self._trailers = 0  # bytes of trailers

    @property
    def ended(self) -> bool:
        """Return whether the whole body has come."""
        return self._expected is _Expected.NOTHING

    def feed(self, data: bytes) -> tuple[list[memoryview], bytes]:
        """Return the content in `data`, and what comes behind the body. Raises WrongChunk."""
        view, position = memoryview(data), 0
        found: list[memoryview] = []
        while position < len(data) and not self.ended:
            if self._expected is _Expected.DATA:
                end = min(len(data), position + self._left)
                found.append(view[position:end])
                self._left -= end - position
                position = end
                if not self._left:
                    position = self._begin_next(data, position)
            else:
                position = self._feed_line(data, position)
        return found, data[position:] if self.ended else b""

    def _begin_next(self, data: bytes, position: int) -> int:
        """Take the end of a chunk, and the size of the next one if it is there as a whole.

        Returns the position behind them. Lines are taken one by one only where something is unusual.
        """
        between = BETWEEN.match(data, position)
        if between is None or not (size := int(between[1], 16)):
            self._expected = _Expected.DATA_END
            return position
        self._left = size
        return between.end()

    def _feed_line(self, data: bytes, position: int) -> int:
        """Take a line, or the beginning of one; return the position behind it."""
        found = data.find(b"\n", position, position + LINE_BYTES)
        end = min(len(data), position + LINE_BYTES) if found < 0 else found + 1
        self._line += data[position:end]
        if len(self._line) > LINE_BYTES:
            raise WrongChunk("a line of the chunked body is too long")
        if found >= 0:
            line, self._line = self._line, b""
            self._take_line(line)
        return end

    def _take_line(self, line: bytes) -> None:
        if self._expected is _Expected.SIZE:
            self._take_size(line)
        elif self._expected is _Expected.DATA_END:
            if line != CRLF:
                raise WrongChunk("a chunk is longer than its size")
            self._expected = _Expected.SIZE
        elif line == CRLF:
            self._expected = _Expected.NOTHING
        else:
            self._trailers += len(line)
            if self._trailers > TRAILER_BYTES or TRAILER_LINE.fullmatch(line) is None:
                raise WrongChunk("the trailer of the chunked body is wrong")

    def _take_size(self, line: bytes) -> None:
        size = SIZE_LINE.fullmatch(line)
        if size is None:
            raise WrongChunk("the size of a chunk is wrong")
        self._left = int(size[1], 16)
        self._expected = _Expected.DATA if self._left else _Expected.TRAILER
