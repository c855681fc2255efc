"""Lists of the digests that a receiver has, for an export that carries what the receiver lacks.

A text of lines, so that it survives mail and clipboards:

    registry-mirror have 1
    digests 100000
    <base64: the first 16 bytes of each digest, sorted>
    sha256 <SHA-256 of what the base64 stands for>

Digests are random, and do not compress: 100,000 whole ones would be 3.05 MiB even in binary. 16 bytes of each
are 2.1 MiB as text. An accident makes two blobs with the same 16 bytes once in 10^28 lists of a million. A
blob that is left out for that reason is reported as lacking by the import, never taken for another.
"""

import binascii
import gzip
import hashlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from mirror.bundle.errors import BundleError, Damaged, Unsupported
from mirror.oci.digest import Digest

MAGIC = b"registry-mirror have "
VERSION = 1

# Bytes of a digest that are kept.
KEPT = 16

# Bytes of one line of base64: 76 characters.
_LINE = 57

# Most digests of a list, which is held in memory: 160 MB.
MOST_DIGESTS = 10_000_000


class HaveList:
    """A set of digests, as a receiver's list has them. 16 bytes of memory each."""

    def __init__(self, records: bytes) -> None:
        self._records = records

    @classmethod
    def of(cls, digests: Iterable[Digest]) -> "HaveList":
        """Return the list of these digests, in any order; some may be given more than once."""
        return cls.of_encoded(each.encoded for each in digests)

    @classmethod
    def of_encoded(cls, digests: Iterable[str]) -> "HaveList":
        """Return the list of these digests, as `of`, given as hexadecimal digits. ValueError for others."""
        buckets = [bytearray() for _ in range(256)]
        for digest in digests:
            record = bytes.fromhex(digest[: 2 * KEPT])
            buckets[record[0]] += record
        for place, bucket in enumerate(buckets):
            buckets[place] = _sorted(bucket)
        return cls(b"".join(buckets))

    def __len__(self) -> int:
        return len(self._records) // KEPT

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, Digest):
            return False
        wanted = bytes.fromhex(digest.encoded[: 2 * KEPT])
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._records[middle * KEPT : (middle + 1) * KEPT] < wanted:
                low = middle + 1
            else:
                high = middle
        return self._records[low * KEPT : (low + 1) * KEPT] == wanted

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the text."""
        yield b"%s%d\n" % (MAGIC, VERSION)
        yield b"digests %d\n" % len(self)
        for place in range(0, len(self._records), _LINE):
            yield binascii.b2a_base64(self._records[place : place + _LINE])
        yield b"sha256 %s\n" % hashlib.sha256(self._records).hexdigest().encode()


def read_have(file: BinaryIO) -> HaveList:
    """Read a list, which gzip may have compressed. Raises BundleError for any other file."""
    start = file.read(2)
    file.seek(-len(start), 1)
    try:
        if start != b"\x1f\x8b":
            return _parsed(iter(file))
        with gzip.open(file) as lines:
            return _parsed(iter(lines))
    except (OSError, EOFError) as error:
        raise Damaged(f"the list of digests cannot be read: {error}") from None


def _parsed(lines: Iterator[bytes]) -> HaveList:
    first = next(lines, b"")
    if not first.startswith(MAGIC):
        raise BundleError("not a list of digests; `registry-mirror have` writes one")
    if first.strip() != b"%s%d" % (MAGIC, VERSION):
        raise Unsupported(f"a list of digests of another version than {VERSION}")
    count = next(lines, b"").removeprefix(b"digests ").strip()
    if not count.isdigit() or len(count) > 9 or int(count) > MOST_DIGESTS:
        raise Damaged("the list of digests does not say how many there are")
    return HaveList(_records(lines, int(count)))


def _records(lines: Iterator[bytes], count: int) -> bytes:
    found = bytearray()
    for line in lines:
        if line.startswith(b"sha256 "):
            stated = line.removeprefix(b"sha256 ").strip()
            if len(found) != count * KEPT or hashlib.sha256(found).hexdigest().encode() != stated:
                raise Damaged("the list of digests is damaged; write it again with `registry-mirror have`")
            return bytes(found)
        try:
            found += binascii.a2b_base64(line, strict_mode=False)
        except binascii.Error:
            raise Damaged("a line of the list of digests is no base64") from None
        if len(found) > count * KEPT:
            break
    raise Damaged("the list of digests is cut short")


def _sorted(bucket: bytearray) -> bytearray:
    records = {bytes(bucket[place : place + KEPT]) for place in range(0, len(bucket), KEPT)}
    return bytearray().join(sorted(records))
