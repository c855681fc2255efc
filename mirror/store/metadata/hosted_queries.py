"""Questions about hosted repositories, to the index. Rows: `hosted_index`, `metadata.pushed_referrers`."""

from collections.abc import Collection, Iterable

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.metadata.index import LINKED, LINKS, ROWS, Index, Link, TagEntry
from mirror.store.metadata.pushed_referrers import PushedReferrers


class HostedQueries:
    """Questions to one index. Every method blocks. Raises OSError and sqlite3.Error."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._referrers = PushedReferrers(index)

    def tag_entries(self, repository: Repository, after: str, limit: int) -> list[tuple[str, TagEntry]]:
        """Return up to `limit` tags, in order, that sort after `after`, with their entries."""
        kind = f"tag:{repository}:"
        rows = self._index.database.query(
            "SELECT key, value FROM Cache WHERE key > ? AND key < ? ORDER BY key LIMIT ?",
            (f"{kind}{after}", f"{kind}\U0010ffff", limit),
        )
        entries = ((str(key).removeprefix(kind), TagEntry.from_json(value)) for key, value in rows)
        return [(name, entry) for name, entry in entries if entry is not None]

    def links_among(self, repository: Repository, digests: Iterable[Digest]) -> dict[Digest, Link]:
        """Return the links of a repository to some digests; none for one that cannot be read."""
        keys = {f"link:{repository}@{digest}": digest for digest in digests}
        found: dict[Digest, Link] = {}
        for start in range(0, len(keys), ROWS):
            some = list(keys)[start : start + ROWS]
            marks = ",".join("?" * len(some))
            rows = self._index.database.query(f"SELECT key, value FROM Cache WHERE key IN ({marks})", some)  # noqa: S608
            for key, text in rows:
                link = Link.read(text) if isinstance(text, str) else self._index.link(repository, keys[key])
                found |= {} if link is None else {keys[key]: link}
        return found

    def referring(self, repository: Repository, subject: Digest) -> list[Digest]:
        """Return the manifests whose subject a digest is."""
        kind = f"referrer:{repository}@{subject}@"
        rows = self._index.database.query(
            "SELECT key FROM Cache WHERE key >= ? AND key < ?", (kind, f"{kind}\U0010ffff")
        )
        return [Digest.parse(str(key).removeprefix(kind)) for (key,) in rows]

    def tags_of(self, repository: Repository, digest: Digest) -> list[str]:
        """Return the tags that point to a manifest."""
        kind = f"tag:{repository}:"
        rows = self._index.database.query(
            "SELECT key, value FROM Cache WHERE key >= ? AND key < ? AND instr(value, ?)",
            (kind, f"{kind}\U0010ffff", str(digest)),
        )
        entries = ((str(key).removeprefix(kind), TagEntry.from_json(value)) for key, value in rows)
        return sorted(name for name, entry in entries if entry is not None and entry.digest == str(digest))

    def referrers(
        self, repository: Repository, subject: Digest, after: str, kinds: Collection[str]
    ) -> tuple[str, str | None]:
        """Return a page of the list of referrers of a digest (`PushedReferrers.page`)."""
        return self._referrers.page(repository, subject, after, kinds)

    def linking(self, digest: Digest, limit: int) -> list[Repository]:
        """Return up to `limit` repositories that link a digest, in order."""
        rows = self._index.database.query(
            f"SELECT key FROM Cache WHERE {LINKED} = ? AND {LINKS} ORDER BY key LIMIT ?",  # noqa: S608  # ours
            (str(digest), limit),
        )
        names = (str(key).removeprefix("link:").rpartition("@")[0] for (key,) in rows)
        return [Repository(*name.split("/", 1)) for name in names]

    def is_linked_in(self, registry: str, digest: Digest) -> bool:
        """Return whether a repository of the registry links a digest."""
        rows = self._index.database.query(
            f"SELECT 1 FROM Cache WHERE {LINKED} = ? AND {LINKS} AND key >= ? AND key < ? LIMIT 1",  # noqa: S608  # ours
            (str(digest), f"link:{registry}/", f"link:{registry}0"),
        )
        return bool(rows)

    def was_named_before(self, repository: Repository, digest: Digest, before: float) -> bool:
        """Return whether a link was last named, or pushed, before a moment."""
        rows = self._index.database.query(
            "SELECT 1 FROM Cache WHERE key = ? AND store_time < ?", (f"link:{repository}@{digest}", before)
        )
        return bool(rows)

    def note_named(self, repository: Repository, digests: Iterable[Digest], now: float) -> None:
        """Write down that a manifest names contents of its repository now."""
        keys = [f"link:{repository}@{digest}" for digest in digests]
        for start in range(0, len(keys), ROWS):
            some = keys[start : start + ROWS]
            marks = ",".join("?" * len(some))
            statement = f"UPDATE Cache SET store_time = ? WHERE key IN ({marks})"  # noqa: S608  # marks only
            self._index.database.query(statement, (now, *some))

    def exists(self, repository: Repository) -> bool:
        """Return whether anything was pushed to the repository, and is there still."""
        return f"repository:{repository}" in self._index.database.cache

    def held(self, name: str) -> int:
        """Return the bytes that a registry holds, or a repository, `<registry>/<repository>`."""
        text = self._index.database.cache.get(f"held:{name}")
        return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0
