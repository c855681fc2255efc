"""Bodies with a Content-Encoding that was not asked for; pure.

Mostly the label is wrong, and the bytes are those of the digest: object stores keep `aws-chunked`, static
servers label each `.gz` file. Where they are really compressed, clients that are written in Go decode them.
"""

import zlib
from collections.abc import Iterator

GZIP = frozenset({"gzip", "x-gzip"})
# The first bytes of every gzip file.
_MAGIC = b"\x1f\x8b"
# Most bytes that are decoded at a time.
_PIECE = 1024 * 1024


class Gunzip:
    """Decoder of gzip, of several members one after another too.

    `complete` is true at the end of a member. `ended` is true where no further member follows, or the bytes
    are no gzip; what comes after that is left out.
    """

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)
        self.complete = self.ended = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of the next part."""
        while data and not self.ended:
            if self.complete:
                self.ended = not data.startswith(_MAGIC[: len(data)])
                if self.ended:
                    return
                self._decoder, self.complete = zlib.decompressobj(wbits=31), False
            try:
                piece = self._decoder.decompress(data, _PIECE)
            except zlib.error:
                self.complete, self.ended = False, True
                return
            self.complete = self._decoder.eof
            data = self._decoder.unused_data if self.complete else self._decoder.unconsumed_tail
            if piece:
                yield piece


def as_sent_or_decoded(data: bytes, encoding: str, limit: int) -> Iterator[bytes]:
    """Yield the bytes as sent, and then decoded by the label, if that gives at most `limit` bytes."""
    yield data
    if encoding in GZIP and data.startswith(_MAGIC):
        gunzip, decoded = Gunzip(), bytearray()
        for piece in gunzip.pieces(data):
            decoded += piece
            if len(decoded) > limit:
                return
        if gunzip.complete:
            yield bytes(decoded)


def document(data: bytes, encoding: str, limit: int) -> bytes:
    """Return a JSON document, decoded if it was compressed: JSON begins otherwise."""
    return list(as_sent_or_decoded(data, encoding, limit))[-1]
