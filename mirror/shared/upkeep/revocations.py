"""Revocations of tokens, as sealed small objects in the bucket, which outlive any coordinator.

    revoked/<hash of the token's digest>    a line that only a mirror with the secret of all can have written

A revocation that somebody has removed or replaced is written again by each mirror that knows it. Where
others have put very many objects beside them, a mirror reads a bounded part of the list, and asks for what
it did not find there by name, some at a time.
"""

import hashlib
from collections.abc import Collection, Mapping

from mirror.shared.errors import TierError
from mirror.shared.interfaces import ConditionalObjects
from mirror.shared.upstream_word import Seal
from mirror.util.log import get_logger

log = get_logger(__name__)

REVOKED = "revoked"

# The most names of the list that are read: twice as many as one mirror remembers. A page of it has 1,000.
MOST_LISTED = 20_000

# Names that are asked for at a time where the list is longer.
ASKED = 200

_TEXT = b"1 revoked\n"


class Revocations:
    """The revocations in one bucket. Raises TierError."""

    def __init__(self, objects: ConditionalObjects, seal: Seal) -> None:
        self._objects = objects
        self._seal = seal
        self._genuine: dict[str, float] = {}  # when each of ours was last written, as far as it was read
        self._asked = ""  # the name that was asked for last, of a list that is too long

    async def sync(self, mine: Collection[str], tokens: Collection[str]) -> set[str]:
        """Write the revocations of this mirror; return which of its tokens another one has revoked.

        Both are digests of secrets. They do not stand in the bucket.
        """
        keys = {digest: revocation_key(digest) for digest in (*mine, *tokens)}
        there, known = await self._look(set(keys.values()))
        self._genuine = {
            key: read
            for key, read in self._genuine.items()
            if there.get(key) == read or (key in keys.values() and key not in known)
        }
        gone = {each for each in tokens if keys[each] in known and await self._is_genuine(keys[each], there)}
        try:
            await self._tell([keys[each] for each in mine if keys[each] in known], there)
        except TierError as error:  # what others have revoked is refused all the same
            log.warning("revoked tokens not told to other mirrors, tried again later", reason=str(error))
        return gone

    async def _look(self, wanted: set[str]) -> tuple[dict[str, float], set[str]]:
        """Return when each was written of those that are there, and about which of them that is known."""
        there, listed = {}, 0
        async for each in self._objects.names(REVOKED):
            if each.key in wanted:
                there[each.key] = each.modified
            if (listed := listed + 1) >= MOST_LISTED:
                return await self._ask_some(wanted, there)
        return there, wanted

    async def _ask_some(self, wanted: set[str], there: dict[str, float]) -> tuple[dict[str, float], set[str]]:
        """Ask for the next names of those that a list did not have which is too long."""
        log.warning("too many objects below revoked/, tokens are asked for one by one", listed=MOST_LISTED)
        left = sorted(wanted - there.keys())
        later = [each for each in left if each > self._asked]
        turn = [*later, *left[: len(left) - len(later)]][:ASKED]
        self._asked = turn[-1] if turn else ""
        for key in turn:
            if (found := await self._objects.read(key)) is not None:
                there[key] = found.modified
        return there, there.keys() | set(turn)

    async def _tell(self, mine: Collection[str], there: Mapping[str, float]) -> None:
        for key in mine:
            if not await self._is_genuine(key, there):
                sealed = self._seal.wrap(key, _TEXT)
                if sealed is not None:
                    await self._objects.write(key, sealed)

    async def _is_genuine(self, key: str, there: Mapping[str, float]) -> bool:
        """Return whether a mirror has written it as it is now: any user of the bucket can write objects."""
        if key in there and key not in self._genuine:
            found = await self._objects.read(key)
            if found is not None and self._seal.unwrap(key, found.data) == _TEXT:
                self._genuine[key] = there[key]
        return key in self._genuine


def revocation_key(digest: str) -> str:
    """Return the key of the revocation of a token."""
    return f"{REVOKED}/{hashlib.sha256(f'token {digest}'.encode()).hexdigest()}"
