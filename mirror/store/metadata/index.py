"""The index: which repository has which digest, what tags pointed to, which referrers were listed.

Synchronous: everything here runs in a disk thread. The keys sort so that a prefix is a listing:

    link:<upstream>/<repository>@<digest>        -> Link
    tag:<upstream>/<repository>:<tag>            -> TagEntry
    typed:<upstream>/<repository>:<tag>          -> TagEntry, of a tag that was asked for with further types
    referrers:<upstream>/<repository>@<digest>   -> ReferrersEntry
    repository:<upstream>/<repository>           -> ""
    seen:<upstream>/<repository>@<digest>        -> when a manifest was first known here
    usage:<day>:<name>                           -> bytes fetched for a client (usage.py)
    public:<upstream>/<repository>               -> PublicMark (metadata/visibility.py)
"""

import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import diskcache
import msgspec
from diskcache.core import EVICTION_POLICY
from msgspec import Struct
from msgspec.structs import asdict, replace

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.database import BUSY_SECONDS, Database, PlainDisk

# Values up to this many bytes live in SQLite itself; a long referrers list goes to a file beside it.
INLINE_BYTES = 32 * 1024

# SQL: the condition for keys of links, and the digest in such a key. SQLite counts characters from 1.
LINKS = "key >= 'link:' AND key < 'link;'"
LINKED = "substr(key, instr(key, '@') + 1)"

# Nothing is ever culled. The `init` statement of a policy is diskcache's only place for an SQL index of ours:
# without it, finding the other repositories of a blob would read all links there are.
POLICY = "kept"
EVICTION_POLICY[POLICY] = {
    "init": f"CREATE INDEX IF NOT EXISTS Cache_linked ON Cache ({LINKED}) WHERE {LINKS}",
    "get": None,
    "cull": None,
}


# `Link.confirmed` of a link that an earlier version has written.
AT_AN_UNKNOWN_TIME = 0.0


def with_standing(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a link; one of an earlier version tells neither name nor confirmation."""
    if "confirmed" in values:
        return values
    return {**values, "confirmed": AT_AN_UNKNOWN_TIME, "account": True}


class Gone(Struct, frozen=True):
    """Content that is kept although it is gone upstream, in seconds since the epoch.

    `since`: when the upstream first said so; `asked`: when it last did.
    """

    since: float
    asked: float


class Link(Struct, frozen=True):
    """The fact that a repository contains a digest. `media_type` is set for manifests only.

    `confirmed`: when the repository's upstream last said so, in seconds since the epoch. None if only a
    manifest of the repository names the digest: what that names is up to who pushed it. `account`: whether
    the upstream was asked with an account, so that its word holds for a while only. `gone`: set while its
    content is kept although the upstream does not have it any more.
    """

    media_type: str | None = None
    size: int | None = None
    confirmed: float | None = None
    account: bool = False
    gone: Gone | None = None

    @classmethod
    def parse(cls, values: dict[str, Any]) -> "Link":
        """Return a link as it was written. TypeError for keys that no link has.

        A link of an earlier version may have been named or confirmed, with or without an account.
        """
        values = with_standing(values)
        gone = values.get("gone")
        return cls(**(values if gone is None else {**values, "gone": Gone(**gone)}))

    @classmethod
    def read(cls, text: str) -> "Link | None":
        """Return the link of a row; None for another text."""
        with suppress(ValueError, TypeError):
            return cls.parse(json.loads(text))
        return None

    def to_json(self) -> str:
        """Return the text of a row. An earlier version takes a row with further keys for none."""
        values = asdict(self)
        gone = values.pop("gone")
        written = values if gone is None else {**values, "gone": asdict(gone)}
        return json.dumps(written, separators=(",", ":"))

    def over(self, known: "Link | None") -> "Link":
        """Return this link written over a known one.

        A blob's link never replaces a manifest's, and a name neither a confirmation nor its size.
        """
        if known is None:
            return self
        kept = known if known.media_type is not None and self.media_type is None else self
        if self.confirmed is not None or known.confirmed is None:
            return replace(kept, confirmed=self.confirmed, account=self.account, gone=self.gone)
        size = kept.size if known.size is None else known.size
        return replace(kept, size=size, confirmed=known.confirmed, account=known.account, gone=known.gone)


# `TagEntry.confirmed` of a tag that no upstream has confirmed.
NEVER = 0.0


class Provenance(Struct, frozen=True, omit_defaults=True):
    """The provenance of a tag entry that does not come from its upstream.

    `kind`: how it came here, for instance "imported". `origin`: the name of what it came from, as text for
    people. `date`: when it came, in seconds since the epoch. `confirmed`: when the upstream last
    confirmed the tag there, 0 if that is not known.
    """

    kind: str
    origin: str
    date: float
    confirmed: float = 0.0


class TagEntry(Struct, frozen=True, omit_defaults=True):
    """The target of a tag when the upstream was last asked; `confirmed` in seconds since the epoch.

    `confirmed` is NEVER, and `provenance` is set, until the upstream is asked about a tag that came another
    way. `gone` is set while the tag is kept although it is gone upstream. A row of a later version may have
    further keys, which are ignored; an earlier version takes a row with further keys for none.
    """

    digest: str
    media_type: str
    size: int
    confirmed: float
    provenance: Provenance | None = None
    gone: Gone | None = None

    @classmethod
    def from_json(cls, text: str) -> "TagEntry | None":
        """Return the entry of a row; None for another text."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return None

    def to_json(self) -> str:
        """Return the text of a row."""
        return msgspec.json.encode(self).decode()

    @property
    def written(self) -> float:
        """The time at which the entry was last known to be right, in seconds since the epoch."""
        return self.confirmed if self.provenance is None else self.provenance.date


class ReferrersEntry(Struct, frozen=True):
    """The list of what refers to a digest, unfiltered; `confirmed` in seconds since the epoch.

    The list is JSON text (`oci.referrers`), which is neither parsed nor printed here: it may have megabytes.
    """

    manifests: str
    confirmed: float

    @classmethod
    def from_json(cls, text: str) -> "ReferrersEntry | None":
        """Return the entry of a row; None for another text."""
        found = REFERRERS.fullmatch(text)
        return None if found is None else cls(found[1], float(found[2]))

    def to_json(self) -> str:
        """Return the text of a row."""
        return f'{{"manifests":{self.manifests},"confirmed":{self.confirmed}}}'


REFERRERS = re.compile(r'\{"manifests":(\[.*\]),"confirmed":([0-9.e+-]+)\}', re.DOTALL)


# Rows to read or remove at a time, so that no transaction and no list is long.
ROWS = 500

# Links that one transaction writes: some ten milliseconds, in which other writers wait.
LINKS_AT_ONCE = 100


class Index:
    """The database `folder/cache.db`. Never culled: the quota is for blobs, and index entries are small."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(
            folder,
            timeout=BUSY_SECONDS,
            disk=PlainDisk,
            disk_min_file_size=INLINE_BYTES,
            eviction_policy=POLICY,
            cull_limit=0,
        )

    @property
    def _cache(self) -> diskcache.Cache:
        return self.database.cache

    def link(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link of a repository to a digest; None for one that cannot be read."""
        text = self._cache.get(f"link:{repository}@{digest}")
        return Link.read(text) if isinstance(text, str) else None

    def add_links(self, repository: Repository, links: Mapping[Digest, Link]) -> None:
        """Record links over known ones (`Link.over`).

        LINKS_AT_ONCE in a transaction, so that other writers wait for no long one.
        """
        pending = list(links.items())
        seen = max((each.confirmed for each in links.values() if each.confirmed), default=time.time())
        while pending:
            with self._cache.transact():
                for digest, link in pending[:LINKS_AT_ONCE]:
                    self.put_link(repository, digest, link.over(self.link(repository, digest)), seen)
                self.database.add_text(f"repository:{repository}", "")
            del pending[:LINKS_AT_ONCE]

    def put_link(self, repository: Repository, digest: Digest, link: Link, seen: float) -> None:
        """Write a link, and when a manifest was first seen. In a transaction of the caller's."""
        self.database.put_text(f"link:{repository}@{digest}", link.to_json())
        if link.media_type is not None:
            self.database.add_text(f"seen:{repository}@{digest}", str(seen))

    def first_seen(self, repository: Repository, digest: Digest, now: float) -> float:
        """Return when a manifest was first known here, or named by an index; now, if it was not.

        A link that an earlier version has written tells when it was confirmed, which is no earlier.
        """
        key = f"seen:{repository}@{digest}"
        text = self._cache.get(key)
        if text is None:
            link = self.link(repository, digest)
            text = str(now if link is None or not link.confirmed else min(now, link.confirmed))
            self._cache.add(key, text)
        with suppress(ValueError, TypeError):
            return float(text)
        return now

    def drop_link(self, repository: Repository, digest: Digest) -> None:
        """Remove a link."""
        self._cache.delete(f"link:{repository}@{digest}")

    def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return a tag entry."""
        text = self._cache.get(_tag_key(repository, tag))
        # An unreadable entry is asked of the upstream again, never trusted.
        return TagEntry.from_json(text) if isinstance(text, str) else None

    def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Write a tag entry."""
        with self._cache.transact():
            self.database.put_text(_tag_key(repository, tag), entry.to_json())

    def drop_tag(self, repository: Repository, tag: Tag) -> None:
        """Remove a tag entry."""
        self._cache.delete(_tag_key(repository, tag))

    def referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        """Return the referrers list of a digest."""
        text = self._cache.get(f"referrers:{repository}@{digest}")
        with suppress(ValueError):
            return ReferrersEntry.from_json(text) if isinstance(text, str) else None
        return None

    def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        """Write the referrers list of a digest."""
        self._cache.set(f"referrers:{repository}@{digest}", entry.to_json())

    def tags(self, repository: Repository, after: str, limit: int, prefix: str = "") -> list[str]:
        """Return up to `limit` tags with an entry, in order: with `prefix`, and sorted after `after`."""
        return self._names(f"tag:{repository}:", prefix, after, limit)

    def repositories(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return up to `limit` names `<upstream>/<repository>`, in order.

        They start with `prefix` and sort after `after`.
        """
        return self._names("repository:", prefix, after, limit)

    def links(self, repository: Repository, after: str, limit: int) -> list[tuple[Digest, Link, float]]:
        """Return up to `limit` links whose digests sort after `after`, with the time each was written."""
        found = []
        kind = f"link:{repository}@"
        for key, value, noted in self._rows("key, value, store_time", kind, "", after, limit):
            with suppress(ValueError, TypeError, RegistryError):
                found.append((Digest.parse(key.removeprefix(kind)), Link.parse(json.loads(value)), noted))
        return found

    def drop(self, repository: Repository, tags: Iterable[str], digests: Iterable[Digest]) -> None:
        """Remove tags, and links with their referrers lists; and the repository with the last of them."""
        keys = [
            *(f"{kind}:{repository}:{tag}" for tag in tags for kind in ("tag", "typed", "pulled")),
            *(f"{kind}:{repository}@{digest}" for digest in digests for kind in ("link", "referrers")),
        ]
        for start in range(0, len(keys), ROWS):
            with self._cache.transact():
                for key in keys[start : start + ROWS]:
                    self._cache.delete(key)
        with self._cache.transact():
            if not self.tags(repository, "", 1) and not self.links(repository, "", 1):
                self._cache.delete(f"repository:{repository}")

    def _names(self, kind: str, prefix: str, after: str, limit: int) -> list[str]:
        """Return the keys of `_rows`, in order, with `kind` cut off."""
        return [key.removeprefix(kind) for (key,) in self._rows("key", kind, prefix, after, limit)]

    def _rows(self, columns: str, kind: str, prefix: str, after: str, limit: int) -> list[tuple[Any, ...]]:
        """Select `columns` of rows whose keys begin with `kind + prefix` and sort after `kind + after`."""
        later, first = f"{kind}{after}", f"{kind}{prefix}"
        bound = "key > ?" if later >= first and after else "key >= ?"
        return self.database.query(
            f"SELECT {columns} FROM Cache WHERE {bound} AND key < ? ORDER BY key LIMIT ?",  # noqa: S608  # ours
            # U+10FFFF sorts after every character a name can have.
            (max(later, first), f"{first}\U0010ffff", limit),
        )

    def close(self) -> None:
        """Close this thread's connection."""
        self.database.close()


def _tag_key(repository: Repository, tag: Tag) -> str:
    return f"{'typed' if tag.also else 'tag'}:{repository}:{tag}"
