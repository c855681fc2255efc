"""Entries of the blob store as values, and the results of what is done with them."""

from enum import Enum, StrEnum
from typing import BinaryIO

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.store.metadata.blob_table import BlobRow, Position

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


def evicted_blob(row: BlobRow, reason: EvictionReason) -> EvictedBlob:
    """Return an entry as an evicted blob."""
    return EvictedBlob(Digest.parse(row.digest), row.size, reason)


class Eviction(Struct, frozen=True):
    """The result of an eviction; up to and including `resume_after` all blobs must be kept."""

    evicted: list[EvictedBlob]
    resume_after: Position
