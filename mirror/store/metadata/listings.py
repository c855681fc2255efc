"""Lists of rows of many repositories, by their keys."""

from collections.abc import Iterable, Sequence
from typing import Any

from mirror.oci.reference import Repository
from mirror.store.metadata.index import Index, TagEntry


def gone_tags(index: Index, repository: Repository) -> list[tuple[str, TagEntry]]:
    """Return the tags, in order, that are kept although they are gone upstream."""
    kind = f"tag:{repository}:"
    rows = index.database.query(
        """SELECT key, value FROM Cache WHERE key >= ? AND key < ? AND value LIKE '%"gone":{%'""",
        (kind, f"{kind}\U0010ffff"),
    )
    entries = ((key.removeprefix(kind), TagEntry.from_json(value)) for key, value in rows)
    return sorted((name, entry) for name, entry in entries if entry is not None and entry.gone is not None)


def count_tags(index: Index, names: Iterable[str]) -> dict[str, int]:
    """Return the number of tags of each repository."""
    statement = "SELECT count(*) FROM Cache WHERE key >= ? AND key < ?"
    query = index.database.query
    return {name: int(query(statement, (f"tag:{name}:", f"tag:{name};"))[0][0]) for name in names}


def matching_rows(
    index: Index, kind: str, words: Sequence[str], after: str, limit: int
) -> list[tuple[str, Any]]:
    """Return keys and values of up to `limit` rows of a kind, in order, after the key `after`.

    Each of `words` stands in the key behind the kind.
    """
    matches = " AND key LIKE ? ESCAPE '!'" * len(words)
    first = f"{kind[:-1]}{chr(ord(kind[-1]) + 1)}"
    values: list[object] = [max(after, kind), first, *map(_like, words), limit]
    statement = f"SELECT key, value FROM Cache WHERE key > ? AND key < ?{matches} ORDER BY key LIMIT ?"  # noqa: S608  # marks only
    return [(str(key), value) for key, value in index.database.query(statement, values)]


def _like(word: str) -> str:
    """Return the pattern of LIKE that finds a word behind the kind of a key."""
    escaped = word.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%:%{escaped}%"


def rows_between(index: Index, ranges: Sequence[tuple[str, str]]) -> list[tuple[str, Any]]:
    """Return keys and values of the rows of some ranges of keys at one moment; the ends are not in them."""
    condition = " OR ".join(["(key >= ? AND key < ?)"] * len(ranges))
    rows = index.database.query(
        f"SELECT key, value FROM Cache WHERE {condition} ORDER BY key",  # noqa: S608  # marks alone
        [bound for each in ranges for bound in each],
    )
    return [(str(key), value) for key, value in rows]
