"""Bodies with a Content-Encoding that was not asked for; pure.

Mostly the label is wrong, and the bytes are those of the digest: object stores keep `aws-chunked`, static
servers label each `.gz` file. Where they are really compressed, clients that are written in Go decode them.
"""

import zlib
from collections.abc import Iterator

_GZIP = frozenset({"gzip", "x-gzip"})
# The first bytes of every gzip file.
_MAGIC = b"\x1f\x8b"


def as_sent_or_decoded(data: bytes, encoding: str, limit: int) -> Iterator[bytes]:
    """Yield the bytes as sent, and then decoded by the label, if that gives at most `limit` bytes."""
    yield data
    if encoding in _GZIP and data.startswith(_MAGIC):
        decoder = zlib.decompressobj(wbits=31)
        try:
            decoded = decoder.decompress(data, limit + 1)
        except zlib.error:
            return
        if decoder.eof and len(decoded) <= limit:
            yield decoded


def document(data: bytes, encoding: str, limit: int) -> bytes:
    """Return a JSON document, decoded if it was compressed: JSON begins otherwise."""
    return list(as_sent_or_decoded(data, encoding, limit))[-1]
