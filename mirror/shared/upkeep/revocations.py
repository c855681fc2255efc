"""Revocations of tokens, as sealed small objects in the bucket, which outlive any coordinator.

    revoked/<hash of the token's digest>    a line that only a mirror with the secret of all can have written

A revocation that somebody has removed from the bucket is written again by each mirror that knows it.
"""

import hashlib
from collections.abc import Collection, Iterable

from mirror.shared.interfaces import ConditionalObjects
from mirror.shared.upstream_word import Seal

REVOKED = "revoked"

_TEXT = b"1 revoked\n"


class Revocations:
    """The revocations in one bucket. Raises TierError."""

    def __init__(self, objects: ConditionalObjects, seal: Seal) -> None:
        self._objects = objects
        self._seal = seal
        self._genuine: set[str] = set()

    async def sync(self, mine: Collection[str], tokens: Iterable[str]) -> set[str]:
        """Write the revocations of this mirror; return which of its tokens another one has revoked.

        Both are digests of secrets. They do not stand in the bucket.
        """
        there = {each.key async for each in self._objects.names(REVOKED)}
        for digest in mine:
            if (key := revocation_key(digest)) not in there or not await self._is_genuine(key):
                sealed = self._seal.wrap(key, _TEXT)
                if sealed is not None:
                    await self._objects.write(key, sealed)
        found = {digest: revocation_key(digest) for digest in tokens}
        return {digest for digest, key in found.items() if key in there and await self._is_genuine(key)}

    async def _is_genuine(self, key: str) -> bool:
        """Return whether a mirror has written it: any user of the bucket can write objects."""
        if key not in self._genuine:
            found = await self._objects.read(key)
            if found is not None and self._seal.unwrap(key, found.data) == _TEXT:
                self._genuine.add(key)
        return key in self._genuine


def revocation_key(digest: str) -> str:
    """Return the key of the revocation of a token."""
    return f"{REVOKED}/{hashlib.sha256(f'token {digest}'.encode()).hexdigest()}"
