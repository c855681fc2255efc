"""Entries of the blob store as values, and the results of what is done with them."""

import math
from enum import Enum, StrEnum
from typing import BinaryIO

from msgspec import Struct

from mirror.oci.digest import Digest

# Blobs up to this size are handled whole, in memory: configs, and the many small layers. 256 KiB are hashed
# in less time than it takes to wake a thread, so they are verified each time they are read from the disk.
SMALL_BYTES = 256 * 1024


class Origin(Enum):
    """Origin of a blob: without an account, with one, or not known.

    The value is a prefix of the size in the blob's entry, which an earlier version reads as the same number.
    Unknown are entries of an earlier version, and those of files that were found without an entry.
    """

    PUBLIC = "+"
    PRIVATE = "0"
    UNKNOWN = ""

    def tag(self, size: int) -> str:
        """Return origin and size as the entry has them."""
        return f"{self.value}{size}"

    @classmethod
    def of(cls, tag: str) -> "Origin":
        """Return the origin that an entry has."""
        if tag.startswith(cls.PUBLIC.value):
            return cls.PUBLIC
        return cls.PRIVATE if len(tag) > 1 and tag.startswith(cls.PRIVATE.value) else cls.UNKNOWN


class OpenBlob(Struct, frozen=True):
    """A blob ready to be sent; the holder closes `file`. `size` in bytes."""

    file: BinaryIO
    size: int
    origin: Origin = Origin.UNKNOWN


class EvictionReason(StrEnum):
    """The reasons of an eviction: too little room, without blobs in use too; age; a repository's share."""

    ROOM = "room"
    USED = "used"
    AGE = "age"
    SHARE = "share"


class EvictedBlob(Struct, frozen=True):
    """A blob that was evicted. `size` in bytes."""

    digest: Digest
    size: int
    reason: EvictionReason = EvictionReason.ROOM


class BlobRow(Struct, frozen=True):
    """An entry: the digest as text, the file's name below the blobs, its size in bytes."""

    digest: str
    name: str
    size: int

    def evicted(self, reason: EvictionReason) -> EvictedBlob:
        """Return the entry as an evicted blob."""
        return EvictedBlob(Digest.parse(self.digest), self.size, reason)


# A position in the order of last use: the moment, and the row's number, which orders rows of one moment.
Position = tuple[float, int]
START: Position = (-math.inf, 0)


class Eviction(Struct, frozen=True):
    """The result of an eviction; up to and including `resume_after` all blobs must be kept."""

    evicted: list[EvictedBlob]
    resume_after: Position
