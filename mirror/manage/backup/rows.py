"""The rows of the index that nothing can tell again: hosted repositories, and when images were first seen.

One statement reads them, so that they are those of one moment, whatever other processes write meanwhile.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from mirror.manage.backup.layout import LONGEST_LINE, BackupError
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import digest_or_none
from mirror.store.metadata.hosted_names import KIND, HostedNames
from mirror.store.metadata.listings import rows_between

# Kinds of rows of a hosted repository (`store.metadata.index`, `store.hosted.hosted_index`).
KINDS = ("link", "tag", "typed", "pulled", "referrer", "refers", "repository", "held")

# Rows that one transaction writes.
ROWS_AT_ONCE = 500

# Names of hosted registries in statements at a time; SQLite nests conditions up to a depth of 1,000.
MOST_NAMES = 100

KEY = re.compile(r"([a-z]+):([^/@]+)(/.*)?", re.DOTALL)


class RowsChanged(Exception):
    """A row went while the rows were read; they can be read again."""


def read_rows(folder: CacheDirectory) -> dict[str, str]:
    """Return the rows of one moment, by key. Raises RowsChanged, BackupError."""
    names = sorted(HostedNames(folder.index).all())
    if len(names) > MOST_NAMES:
        raise BackupError(f"there are more than {MOST_NAMES} hosted registries")
    ranges = [(f"{kind}:{name}/", f"{kind}:{name}0") for name in names for kind in KINDS]
    ranges += [(f"{kind}{name}", f"{kind}{name}\0") for name in names for kind in ("held:", KIND)]
    ranges.append(("seen:", "seen;"))
    rows = rows_between(folder.index, ranges)
    return {key: value if isinstance(value, str) else _long(folder, key) for key, value in rows}


def _long(folder: CacheDirectory, key: str) -> str:
    """Return a value that has a file of its own."""
    value = folder.index.database.cache.get(key)
    if not isinstance(value, str):
        raise RowsChanged
    return value


def hosted_in(rows: Iterable[str]) -> list[str]:
    """Return the names of the hosted registries."""
    return sorted(key.removeprefix(KIND) for key in rows if key.startswith(KIND))


def linked_in(rows: Iterable[str]) -> set[Digest]:
    """Return the digests that the rows of hosted repositories link."""
    found = (digest_or_none(key.rpartition("@")[2]) for key in rows if key.startswith("link:"))
    return {each for each in found if each is not None}


def lines_of(rows: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the rows as lines."""
    for key, value in rows.items():
        yield json.dumps([key, value]).encode() + b"\n"


def row_of(line: bytes, hosted: Collection[str]) -> tuple[str, str]:
    """Return the row of a line. Raises BackupError for one that is none of a backup's."""
    if len(line) > LONGEST_LINE:
        raise BackupError("a row of the index is too long")
    try:
        key, value = json_text.parse(line)
    except (ValueError, TypeError):
        raise BackupError("a row of the index is damaged") from None
    found = KEY.fullmatch(key) if isinstance(key, str) and isinstance(value, str) else None
    if found is None or not _is_known(found, hosted):
        raise BackupError(f"the index has a row that no backup has: {key!r:.100}")
    return key, value


def _is_known(key: re.Match[str], hosted: Collection[str]) -> bool:
    kind, name, rest = key.groups()
    if kind == "seen":
        return rest is not None
    if name not in hosted:
        return False
    return kind in KINDS if rest else kind in ("held", "hosted")


def put_rows(folder: CacheDirectory, rows: Iterable[tuple[str, str]]) -> None:
    """Write rows into an index that has none of them."""
    cache = folder.index.database.cache
    pending = list(rows)
    for start in range(0, len(pending), ROWS_AT_ONCE):
        with cache.transact():
            for key, value in pending[start : start + ROWS_AT_ONCE]:
                cache.set(key, value)
