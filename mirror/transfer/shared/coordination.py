"""The place of a blob's bytes now: the object store, the mirror that fetches it, or the upstream.

Asked before a fill begins, and again whenever what it said has failed. The mirror that has the claim goes to
the upstream. When that mirror dies, its lease lapses, and one of those that followed it has the next one.
"""

import asyncio
import time
from collections.abc import Callable

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.shared.health import limited, unlimited
from mirror.shared.interfaces import Holder
from mirror.shared.tier import LEASE_SECONDS, FillClaim, SharedTier
from mirror.util.log import get_logger

log = get_logger(__name__)

# Interval, in seconds, at which a mirror asks for the lease of one that does not answer.
POLL_SECONDS = 0.25

# How long a lease is waited for, in seconds, whose holder does not answer.
PATIENCE = 1.5 * LEASE_SECONDS

# A mirror that was this many bytes behind another one, or was not told, leaves the lease of a dead one to
# others until that has been free for so long, in seconds: what the next holder has not, is sent again.
FAR_BEHIND = 2 * 1024 * 1024
HANDICAP = 1.0


class Place(Struct, frozen=True):
    """A place for the bytes of a blob: the mirror `peer`, or without one the object store."""

    peer: Holder | None = None


class Coordination:
    """The places of one blob, for one fill."""

    def __init__(
        self,
        tier: SharedTier,
        digest: Digest,
        trusts: Callable[[Digest], bool],
        *,
        follows: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`trusts`: whether the object store's bytes of a digest are believed.

        `follows`: mirrors that fetch the blob may be asked for it.
        """
        self.claim: FillClaim | None = None
        self.left_to_another = False  # another mirror fetches the blob, and writes it behind
        self._tier = tier
        self._digest = digest
        self._trusts = trusts
        self._follows = follows
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: Place | None = None
        self._dead: Holder | None = None
        self._alone = False
        self._behind: int | None = 0
        self._free_since: float | None = None  # when the lease of a dead mirror was first seen to be free
        self._lost = 0.0  # seconds in which the object store gave nothing

    async def place(self) -> Place | None:
        """Return where to read; None for the upstream, from then on."""
        async with self._lock:
            if self._known is None and not self._alone:
                self._known = await self._decide()
                self._alone = self._known is None
                log.debug("place of a blob", digest=str(self._digest), place=self._name())
            return self._known

    def record_failure(self, place: Place, behind: int | None = 0, lost: float = 0.0) -> None:
        """Record that a place did not give what was asked of it: the next request decides again.

        `behind`: by how many bytes this mirror was behind another one that followed the same mirror; None
        if that did not say.
        `lost`: seconds in which nothing came.
        """
        if self._known is place:
            self._known, self._dead, self._behind = None, place.peer, behind
            self._free_since = None
            self._lost += lost if place.peer is None else 0.0

    @property
    def reads_store(self) -> bool:
        """Return whether the bytes come from the object store now."""
        return self._known is not None and self._known.peer is None

    @property
    def may_read_store(self) -> bool:
        """Return whether the bytes come from the object store now, or it is to be asked for them."""
        return self.reads_store or (self._known is None and not self._alone)

    @property
    def store_answers(self) -> bool:
        """Return whether the object store may be asked now."""
        return self._tier.usable

    def look_again(self, place: Place) -> "asyncio.Task[bool]":
        """Look in the background whether the store has the blob by now: `place` is no longer used then."""
        return self._tier.spawn(self._look_again(place), name="look for a blob that is followed")

    async def _look_again(self, place: Place) -> bool:
        if not await self._is_stored():
            return False
        if self._known is place:
            self._known = None
        return True

    def go_alone(self) -> None:
        """Ask the upstream from now on."""
        self._known, self._alone = None, True

    def _name(self) -> str:
        if self._known is not None:
            return "object store" if self._known.peer is None else f"mirror {self._known.peer.address}"
        return "upstream, alone" if self.claim is None else "upstream"

    async def _decide(self) -> Place | None:
        began = self._clock()
        with limited(self._tier.waits()):
            place, decided = await self._look()
        while not decided and self._clock() < began + PATIENCE:
            await asyncio.sleep(POLL_SECONDS)
            with unlimited():  # until then clients wait for the lease of a dead mirror, and for no engine
                place, decided = await self._look()
        return place

    async def _look(self) -> tuple[Place | None, bool]:
        """Return a place, and whether to go by it."""
        if await self._is_stored():
            return Place(), True
        held = self.claim or await self._ask()
        if isinstance(held, FillClaim):
            self.claim, self.left_to_another = held, False
            # The holder before this one may have written it since.
            return Place() if await self._is_stored() else None, True
        self.left_to_another = held is not None
        if held is None or not self._follows:
            return None, True
        if not held.owner:  # the lease has lapsed between the claim and the look at who has it
            return None, False
        if held.address in ("", self._tier.address):
            return None, True
        return (Place(held), True) if held != self._dead else (None, False)

    async def _ask(self) -> FillClaim | Holder | None:
        """Claim the blob, or return who has it; leave it for a while to a mirror that has more of it."""
        if self._dead is None or (self._behind is not None and self._behind <= FAR_BEHIND):
            return await self._tier.claim(self._digest)
        if (held := await self._tier.holder(self._digest)) is not None:
            return held
        now = self._clock()
        since = self._free_since = now if self._free_since is None else self._free_since
        return self._dead if now - since < HANDICAP else await self._tier.claim(self._digest)

    async def _is_stored(self) -> bool:
        usable = self._lost < self._tier.limit and self._trusts(self._digest)
        return usable and await self._tier.find(self._digest) is not None
