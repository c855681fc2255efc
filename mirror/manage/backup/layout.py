"""The archive of a backup: a tar of these members, in this order.

    registry-mirror-backup.json       HEAD: BackupHead
    blobs/<algorithm>/<hex>           what hosted repositories link, each blob once
    index.jsonl                       ROWS: rows of the index, `[key, value]` on a line each
    pins, tokens, token-uses,         files of the cache folder, as far as they are there
    warm-runs, savings.db
    contents.json                     CONTENTS: BackupContents, the size and SHA-256 of all but the blobs

A blob proves itself by its name. The rows come behind the blobs: they are read last, so that every blob that
they name is in the archive although the mirror ran meanwhile.
"""

import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from mirror.oci import json_text
from mirror.oci.digest import ENCODED, Digest

HEAD, ROWS, CONTENTS = "registry-mirror-backup.json", "index.jsonl", "contents.json"

# Version of this layout, which is raised when an older mirror could not read a newer archive.
FORMAT = 1

# Files of the cache folder, with the most bytes that are taken of each.
MIB = 1024 * 1024
FILES = {
    "pins": 64 * MIB,
    "tokens": 64 * MIB,
    "token-uses": 64 * MIB,
    "warm-runs": 64 * MIB,
    "savings.db": 4096 * MIB,
}

# Largest head and contents, and the most blobs that an archive says to lack.
MOST_JSON, MOST_MISSING = MIB, 10_000

# Longest line of rows: a descriptor with annotations has as many bytes as a manifest, twice when escaped.
LONGEST_LINE = 16 * MIB

BLOB = re.compile("blobs/(" + "|".join(ENCODED) + ")/([0-9a-f]+)")

Count = Annotated[int, Meta(ge=0)]


class BackupError(Exception):
    """A backup cannot be written, or an archive not be read; the message says why, and what to do."""


class BackupHead(Struct, frozen=True, kw_only=True):
    """The beginning of an archive. `layout`: that of the cache folder; `created`: seconds since the epoch."""

    format: Count
    layout: Count
    version: str
    created: float


class MemberSum(Struct, frozen=True):
    """Size in bytes and SHA-256 of a member."""

    size: Count
    sha256: str


class BackupContents(Struct, frozen=True, kw_only=True):
    """The end of an archive. `hosted`: names of the registries; `missing`: blobs that were not to be had."""

    members: dict[str, MemberSum]
    blobs: Count
    blob_bytes: Count
    hosted: list[str]
    missing: list[str]
    pins: Count
    tokens: Count


def blob_path(digest: Digest) -> str:
    """Return the name of a blob's member."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def blob_of(name: str) -> Digest | None:
    """Return the digest in the name of a blob's member; None for another name."""
    found = BLOB.fullmatch(name)
    if found is None or ENCODED[found[1]].fullmatch(found[2]) is None:
        return None
    return Digest.parse(f"{found[1]}:{found[2]}")


T = TypeVar("T")


def parsed(data: bytes, kind: type[T]) -> T:
    """Return the head or the contents of an archive. Raises BackupError."""
    try:
        return msgspec.convert(json_text.parse(data), kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise BackupError(f"the archive is damaged, or no backup of a mirror: {error}") from None
