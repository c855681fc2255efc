"""Revocations of tokens, as sealed small objects in the bucket, which outlive any coordinator.

    revoked/<hash of the token's digest>    a line that only a mirror with the secret of all can have written

A revocation that somebody has removed or replaced is written again by each mirror that knows it.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping

from mirror.shared.errors import TierError
from mirror.shared.interfaces import ConditionalObjects
from mirror.shared.upstream_word import Seal
from mirror.util.log import get_logger

log = get_logger(__name__)

REVOKED = "revoked"

_TEXT = b"1 revoked\n"


class Revocations:
    """The revocations in one bucket. Raises TierError."""

    def __init__(self, objects: ConditionalObjects, seal: Seal) -> None:
        self._objects = objects
        self._seal = seal
        self._genuine: dict[str, float] = {}  # when each was last written, as far as it was read

    async def sync(self, mine: Collection[str], tokens: Iterable[str]) -> set[str]:
        """Write the revocations of this mirror; return which of its tokens another one has revoked.

        Both are digests of secrets. They do not stand in the bucket.
        """
        there = {each.key: each.modified async for each in self._objects.names(REVOKED)}
        self._genuine = {key: read for key, read in self._genuine.items() if there.get(key) == read}
        found = {digest: revocation_key(digest) for digest in tokens}
        gone = {digest for digest, key in found.items() if await self._is_genuine(key, there)}
        try:
            await self._tell(mine, there)
        except TierError as error:  # what others have revoked is refused all the same
            log.warning("revoked tokens not told to other mirrors, tried again later", reason=str(error))
        return gone

    async def _tell(self, mine: Collection[str], there: Mapping[str, float]) -> None:
        for digest in mine:
            key = revocation_key(digest)
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
