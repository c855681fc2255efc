"""The dependencies that all parts of the transfer and of the cache share, in one value."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from mirror.config.schema import FillSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import AT_AN_UNKNOWN_TIME, Link, ReferrersEntry, TagEntry
from mirror.store.parts.interfaces import StoreParts
from mirror.transfer.corruption import CorruptionTracker
from mirror.transfer.plan import DEFAULT_LIMITS, PlanLimits
from mirror.transfer.transfer import Transfer
from mirror.upstream.upstream import Upstream
from mirror.util.fairness.turns import LookupTurns
from mirror.util.fairness.window_counts import Cells
from mirror.util.tasks import Tasks


class LargeFill(Protocol):
    """The work behind a flight of a large blob."""

    async def run(self) -> None: ...


class LargeFills(Protocol):
    """Another way to fill large blobs than from their upstream alone."""

    def fill(self, upstream: Upstream, transfer: Transfer) -> LargeFill:
        """Return the fill of a blob."""
        ...


class OtherMirrors(Protocol):
    """The knowledge and the small content of other mirrors: `mirror.transfer.shared.shared_words`.

    Nothing here raises, or takes longer than a stated limit. Private repositories, and what a guest is told,
    stay with their mirror.
    """

    def waiting(self) -> AbstractContextManager[None]:
        """Have all that is asked in the block wait no longer than one question to each engine."""
        ...

    async def find_tag(self, repository: Repository, tag: Tag) -> TagEntry | None: ...

    async def missing_since(self, repository: Repository, tag: Tag) -> float | None: ...

    async def find_referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None: ...

    async def missing_blobs(self, repository: Repository, digests: Sequence[Digest]) -> list[Digest]: ...

    async def read(
        self, repository: Repository, digest: Digest, known: Link | None, limit: int
    ) -> tuple[Link, bytes] | None: ...

    def add_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None: ...

    def add_missing(self, repository: Repository, tag: Tag, now: float) -> None: ...

    def add_link(self, repository: Repository, digest: Digest, link: Link) -> None: ...

    def add_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None: ...

    def publish(self, digest: Digest) -> None: ...


def _never_idle() -> float:
    return 0.0


class TransferContext(Struct, frozen=True):
    """Shared dependencies, made once by the composition root.

    `clock` is the wall clock, in seconds since the epoch; `limits` are those of all downloads. `accounts`:
    whether any upstream is asked with an account. `lookups`: the turns of what asks an upstream for less than
    a blob. `idle_seconds`: for how long no client has waited for a connection to an upstream. `attempts`:
    counts of wrong credentials in all workers; None for a process that shares none. `shared_fills`: large
    blobs are shared with other mirrors; None where they come from their upstreams alone.
    `shared_words`: what other mirrors know; None where nothing is shared.
    """

    store: StoreParts
    tasks: Tasks
    metrics: Metrics
    settings: FillSettings
    corruption: CorruptionTracker = field(default_factory=CorruptionTracker)
    clock: Callable[[], float] = time.time
    limits: PlanLimits = DEFAULT_LIMITS
    accounts: bool = True
    idle_seconds: Callable[[], float] = _never_idle
    lookups: LookupTurns = field(default_factory=LookupTurns)
    attempts: Cells | None = None
    shared_fills: LargeFills | None = None
    shared_words: OtherMirrors | None = None

    def confirmed(
        self, upstream: Upstream, repository: Repository, link: Link, since: float | None = None
    ) -> Link:
        """Return a link as the upstream has confirmed it, now or at `since`."""
        moment = self.clock() if since is None else since
        account = upstream.uses_account(repository.path)
        return replace(link, confirmed=float(math.floor(moment)), account=account)

    def link_ttl(self, upstream: Upstream, link: Link) -> float:
        """Return how much longer a link is believed unasked, in seconds; 0 or less: no longer.

        An account may lose its access, so the upstream is asked again. It is about a link of an earlier
        version too, unless there is no account that its content can have come with.
        """
        if not link.account or (link.confirmed == AT_AN_UNKNOWN_TIME and not self.accounts):
            return math.inf
        return self._ttl(upstream, link.confirmed or 0.0)

    def access_ttl(self, upstream: Upstream, repository: Repository, confirmed: float) -> float:
        """Return how much longer an answer about the repository is used unasked, in seconds, as `link_ttl`.

        `confirmed`: when the upstream gave it.
        """
        return self._ttl(upstream, confirmed) if upstream.uses_account(repository.path) else math.inf

    def _ttl(self, upstream: Upstream, confirmed: float) -> float:
        age = self.clock() - confirmed
        return upstream.recheck_access - age if age >= 0 else 0.0  # a clock that was set back
