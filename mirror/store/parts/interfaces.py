"""The interfaces of a store for the event loop, cut by what their callers need.

    Metadata       tags, links, listings, referrers, marks of public repositories
    ContentStore   blobs and manifests that are here: to look up, open, serve and prove
    Transfers      what fills use: leases, partials, growing files, adoption
    Room           the quota, and whether the disk takes writes
    StoreUpkeep    what housekeeping uses

`StoreParts` has one of each: `store.store.Store` on a cache folder, `memory.store.MemoryStore` in memory.
Both pass tests/contract/test_store_parts.py. `guard.py` has the table of what each method does on a
failing disk; those that raise StoreError then say so here.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import EvictedBlob, OpenBlob, Origin
from mirror.store.blobs.headroom import Allowance
from mirror.store.blobs.prover import Proof
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.links.content import LocalContent, StoredManifest
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Link, ReferrersEntry, TagEntry
from mirror.store.metadata.visibility import PublicMark
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.lease import BlobLease, HeldLease
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.util.tasks import Tasks


class Links(Protocol):
    """The links of repositories to digests, and by whose word."""

    async def add(self, repository: Repository, digest: Digest, link: Link) -> None:
        """Link a digest to the repository, over a known link (`Link.over`)."""
        ...

    async def read_again(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link as it is for all processes, one of which may have confirmed it."""
        ...

    async def first_seen(self, repository: Repository, digest: Digest, now: float) -> float:
        """Return when a manifest was first known here; now, from now on, if it was not."""
        ...

    async def withdraw(self, repository: Repository, digest: Digest) -> None:
        """Drop a link, and all copies of it in memory, in all processes: the upstream has refused it."""
        ...


class VisibilityMarks(Protocol):
    """The marks of public repositories."""

    def removals(self) -> int:
        """Return a number that changes when any process withdraws a mark (and at other removals)."""
        ...

    async def mark(self, repository: Repository) -> PublicMark | None: ...

    async def put(self, repository: Repository, mark: PublicMark) -> None: ...

    async def withdraw(self, repository: Repository) -> None:
        """Remove a mark, and what processes remember because of it."""
        ...

    async def between(self, first: str, last: str) -> dict[str, PublicMark]:
        """Return the marks of the repositories from `first` to `last`, by name."""
        ...


class Metadata(Protocol):
    """Knowledge about repositories, without any content."""

    @property
    def links(self) -> Links: ...

    @property
    def visibility(self) -> VisibilityMarks: ...

    async def tag(self, repository: Repository, tag: Tag) -> TagEntry | None: ...

    async def read_tag_again(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the entry as it is for all processes, one of which may have changed it. StoreError."""
        ...

    async def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None: ...

    async def drop_tag(self, repository: Repository, tag: Tag) -> None: ...

    async def known_tags(self, repository: Repository, after: str, limit: int) -> list[str]:
        """Return up to `limit` tags that have an entry and sort after `after`, in order."""
        ...

    async def gone_tags(self, repository: Repository) -> list[tuple[str, TagEntry]]:
        """Return the tags, in order, that are gone upstream, and whose manifests are here. StoreError."""
        ...

    async def referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        """Return the list of referrers of a digest. An empty one remembers that there are none."""
        ...

    async def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None: ...

    async def repositories(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return up to `limit` names, in order, that start with `prefix`, after `after`. StoreError."""
        ...


class Proofs(Protocol):
    """Proofs of blobs that are sent, by their digests."""

    def note_sent(self, digest: Digest, client: str) -> None:
        """Record that a client was sent a large blob to its end."""
        ...

    def note_use(self, digest: Digest, client: str | None) -> bool:
        """Queue a proof, if one is due; return whether the reader must wait for a proof."""
        ...

    def is_pending(self, digest: Digest) -> bool:
        """Return whether a proof that readers wait for is not done."""
        ...


class ContentStore(Protocol):
    """Blobs and manifests. A repository has content by a link that opens it (invariant 5)."""

    def touch(self, digest: Digest) -> None:
        """Note that a blob is used now."""
        ...

    def begin_reading(self, digest: Digest) -> Callable[[], None]:
        """Mark a blob as in use until the returned function is called, hours later perhaps."""
        ...

    async def look_up(self, repository: Repository, digest: Digest) -> LocalContent:
        """Look up link and presence, without content."""
        ...

    async def open_blob(self, repository: Repository, digest: Digest) -> LocalContent:
        """Look up as `look_up`, and open the blob if the repository has a link; the caller closes it."""
        ...

    def take_absent(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link of a blob that was missing when its manifest came, once; None for all others.

        Another process may have stored it since: who takes the lease looks again.
        """
        ...

    async def open_any(self, digest: Digest) -> OpenBlob | None:
        """Open a blob, whatever repository it came through; the caller closes it. StoreError."""
        ...

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """Return the manifest if it is here and linked to the repository as a manifest."""
        ...

    async def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Store a verified manifest if possible, and link it and its children to the repository."""
        ...

    async def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        """Return a whole blob of up to `limit` bytes, whatever repository it came through."""
        ...

    async def missing_blobs(self, digests: Sequence[Digest]) -> list[Digest]:
        """Return those of `digests` that are not here."""
        ...

    def opens(self, link: Link, origin: Origin) -> bool:
        """Return whether a link opens a blob: a name alone does not open what came with an account."""
        ...

    async def quarantine_if_unreadable(self, digest: Digest) -> None:
        """Read a blob that broke off while it was sent; an unreadable one is a miss for the next client."""
        ...

    async def is_quarantined(self, digest: Digest, file: os.stat_result | None = None) -> bool:
        """Return whether the blob was found corrupt; `file`: whether that file of it was. StoreError."""
        ...

    def prover(self, tasks: Tasks, on_proven: Callable[[Proof], object]) -> Proofs:
        """Return what proves blobs again that are sent often."""
        ...


class LocalLeases(Protocol):
    """Leases among the processes of one machine; one that ends has released its own. All raise StoreError."""

    async def acquire_blob(self, digest: Digest) -> BlobLease | None:
        """Acquire the lease for filling a small blob; None while another process holds it."""
        ...

    async def acquire(self, key: str) -> HeldLease | None:
        """Acquire the lease under a key (`store.lock`); None while another process holds it."""
        ...

    async def release(self, lease: HeldLease) -> None:
        """Release a lease without content."""
        ...


class Transfers(Protocol):
    """The work of fills. All but `put_small_blob` raise StoreError."""

    @property
    def leases(self) -> LocalLeases: ...

    async def put_small_blob(
        self, repository: Repository, lease: BlobLease, content: Content, origin: Origin = Origin.UNKNOWN
    ) -> None:
        """Store a verified small blob if possible, and release its lease."""
        ...

    async def adopt(self, verified: VerifiedFile, *, asked_for: bool = True) -> None:
        """Move a verified file into the store, `asked_for` by a client; evict above the quota."""
        ...

    async def lock_partial(
        self, repository: Repository, digest: Digest, *, public: bool = False
    ) -> tuple[Partial | None, LocalContent]:
        """Lock the partial, new or resumed (None if another process holds it); then look the digest up.

        `public`: its bytes, or those that are missing, come without an account.
        """
        ...

    async def open_remote_partial(self, digest: Digest) -> RemotePartial | None:
        """Open the partial that another process fills; None while there is nothing to follow."""
        ...

    async def growing_since(self, moment: float) -> list[Digest]:
        """Return the digests whose partials were written since a moment (seconds since the epoch)."""
        ...

    async def allocate(
        self, partial: Partial, size: int, chunk_size: int, *, public: bool = False
    ) -> ChunkMap:
        """Size the partial for a blob of `size` bytes: resumed if it was of that size, else empty."""
        ...

    async def open_growing_file(
        self, partial: Partial, size: int, chunk_size: int, *, public: bool = False
    ) -> GrowingWriter:
        """Return a writer of the partial as a growing file, after `allocate`."""
        ...

    def growing_writer(self, file: GrowingFile, partial: Partial) -> GrowingWriter:
        """Return the writer of a growing file whose partial is locked here."""
        ...

    async def discard_partial(self, partial: Partial) -> None:
        """Remove the partial's files: they were adopted, or are worthless."""
        ...

    async def release_partial(self, partial: Partial) -> None:
        """Close the partial and release its lock; its content stays for the next fill."""
        ...


class RepositoryShares(Protocol):
    """The limits of single repositories (`[[cache.rules]]`)."""

    async def check(self, repository: Repository, digest: Digest, size: int | None) -> None:
        """Raise NoRoom if a rule does not let the repository keep a blob of `size` bytes, None if unknown."""
        ...

    async def evict_excess(self, repository: Repository, digest: Digest, coming: int = 0) -> None:
        """Evict the repository's own blobs beyond its share: `digest` came, or `coming` bytes of it will."""
        ...


class Room(Protocol):
    """Room for what is fetched. `on_evicted` is called with what the quota cost."""

    on_evicted: Callable[[Sequence[EvictedBlob]], object]

    @property
    def allowance(self) -> Allowance: ...

    @property
    def shares(self) -> RepositoryShares: ...

    @property
    def is_writable(self) -> bool:
        """Return whether fetched content can be kept: not while writing is down."""
        ...

    def report_write_failure(self, error: StoreError) -> None:
        """Mark writing as down until `StoreUpkeep.recover` finds that it works."""
        ...

    async def size_limit(self) -> int:
        """Return how many bytes the cache may hold. StoreError."""
        ...

    async def left(self) -> int:
        """Return how many more bytes the cache may hold; less than 0 if it holds too much. StoreError."""
        ...

    async def excess(self, ahead: int = 0, filling: Digest | None = None) -> int:
        """Return how many bytes must go for `ahead` more bytes to be within the quota. StoreError.

        The fill of `filling` counts with the next bytes that it will write, too.
        """
        ...

    async def evict(self, keep: Sequence[Digest] = (), need: int = 0, filling: Digest | None = None) -> None:
        """Evict until the quota is met and `need` bytes are free; `keep` stays. StoreError."""
        ...

    async def evict_excess(
        self, keep: Sequence[Digest] = (), excess: int | None = None, filling: Digest | None = None
    ) -> None:
        """Evict if there is an `excess`, None for a look. A failure is left to housekeeping."""
        ...

    async def make_room(self, missing: int = 0) -> None:
        """Evict on a full disk for a blob of which bytes are `missing`; failures are ignored."""
        ...


class StoreUpkeep(Protocol):
    """The work of housekeeping."""

    async def recover(self) -> None:
        """Test what is down, and recreate what was removed."""
        ...

    async def warm_up(self) -> None:
        """Open what a request would wait for."""
        ...

    async def claim_housekeeping(self) -> bool:
        """Return whether this process is the housekeeper, one of all processes on the store. StoreError."""
        ...

    async def run_housekeeping(self) -> None:
        """Recover, and write last-use times; one process of all evicts and sweeps too. StoreError."""
        ...

    async def remove_old_partials(self) -> None:
        """Remove fills that were interrupted, by a crash for instance, and not resumed. StoreError."""
        ...

    async def configure_pins(self, pins: Sequence[Pin]) -> None:
        """Replace the pins of the configuration by `pins`; at a later `recover` if that fails now."""
        ...

    async def stats(self) -> tuple[int, int]:
        """Return bytes and number of blobs. StoreError."""
        ...

    async def check(self) -> list[str]:
        """Return the inconsistencies of the content as sentences. StoreError."""
        ...

    async def flush_last_use(self) -> None:
        """Write the last-use times gathered since the last call. StoreError."""
        ...


class StoreParts(Protocol):
    """A store as the cache and the transfers use it. `executor` and `readers` are threads for its files."""

    @property
    def metadata(self) -> Metadata: ...

    @property
    def content(self) -> ContentStore: ...

    @property
    def transfers(self) -> Transfers: ...

    @property
    def room(self) -> Room: ...

    @property
    def upkeep(self) -> StoreUpkeep: ...

    @property
    def executor(self) -> DiskExecutor: ...

    @property
    def readers(self) -> DiskExecutor: ...

    async def close(self) -> None: ...
