"""Marks: sets of digests as small objects, for uses and for pins. Eight bytes of each digest are enough.

Another digest with the same eight bytes is kept a little longer, and nothing else happens.
"""

from collections.abc import Iterable, Iterator

from mirror.oci.digest import Digest

MARK_BYTES = 8

# The most marks of one object: half a megabyte.
MOST_MARKS = 65_536


def mark_of(digest: Digest) -> bytes:
    """Return the mark of a digest."""
    return bytes.fromhex(digest.encoded[: 2 * MARK_BYTES])


def marks_to_objects(marks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the contents of as many objects as the marks need."""
    found = sorted(marks)
    for start in range(0, len(found), MOST_MARKS):
        yield b"".join(found[start : start + MOST_MARKS])


def read_marks(data: bytes) -> set[bytes]:
    """Return the marks of an object; none of one that is none of ours."""
    if len(data) > MOST_MARKS * MARK_BYTES or len(data) % MARK_BYTES:
        return set()
    return {data[at : at + MARK_BYTES] for at in range(0, len(data), MARK_BYTES)}
