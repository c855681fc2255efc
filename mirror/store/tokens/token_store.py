"""The tokens of one cache folder: created, revoked, and looked up by all processes.

A change is durable first, and then told to all processes by the access epoch (`mirror.store.invalidation`),
which each of them compares at every request. A file that was restored from a backup changes no epoch: the
workers compare its signature at each housekeeping.
"""

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from msgspec import Struct

from mirror.access.tokens import TokenEntry
from mirror.store.invalidation import Epoch
from mirror.store.lock import exclusive_lock
from mirror.store.tokens.token_file import (
    Signature,
    read_digests,
    read_tokens,
    read_uses,
    signature,
    write_digests,
    write_tokens,
    write_uses,
)

# A use is written if the last one that was written is older, in seconds.
USE_SECONDS = 60.0

# The most revoked tokens that are remembered for other mirrors; beyond it the oldest are forgotten.
MOST_REVOKED = 10_000


class TokenExists(Exception):
    """There is a token of this name already."""


class ListedToken(Struct, frozen=True):
    """A token, and its last use in seconds since the epoch; None for a token that was not used yet."""

    entry: TokenEntry
    used: float | None


class TokenStore:
    """The tokens on disk. Every method may be called from any thread; all of them block. OSError."""

    def __init__(self, folder: Path, epoch: Epoch, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / "tokens"
        self._uses_path = folder / "token-uses"
        self._revoked_path = folder / "tokens-revoked"
        self._lock_path = folder / "tokens.lock"
        self._epoch = epoch
        self._clock = clock

    def all(self) -> list[TokenEntry]:
        """Return the tokens, sorted by name."""
        return read_tokens(self._path)

    def listed(self) -> list[ListedToken]:
        """Return the tokens with their last use, sorted by name."""
        uses = read_uses(self._uses_path)
        return [ListedToken(each, uses.get(each.sha256)) for each in self.all()]

    def signature(self) -> Signature | None:
        """Return what tells this version of the file from others."""
        return signature(self._path)

    def add(self, entry: TokenEntry) -> None:
        """Add a token; it is good for all processes on return. Raises TokenExists."""
        with exclusive_lock(self._lock_path):
            tokens = self.all()
            if any(each.name == entry.name for each in tokens):
                raise TokenExists(entry.name)
            self._write([*tokens, entry])

    def remove(self, name: str) -> bool:
        """Revoke a token for all processes; return whether there was one of this name."""
        with exclusive_lock(self._lock_path):
            tokens = self.all()
            gone = [each.sha256 for each in tokens if each.name == name]
            if gone:
                self._remove(tokens, gone)
            return bool(gone)

    def remove_revoked(self, digests: Collection[str]) -> int:
        """Remove the tokens whose secrets have these digests, as `remove` does; return their number."""
        with exclusive_lock(self._lock_path):
            tokens = self.all()
            gone = [each.sha256 for each in tokens if each.sha256 in digests]
            if gone:
                self._remove(tokens, gone)
            return len(gone)

    def revoked(self) -> list[str]:
        """Return the digests of the secrets of revoked tokens, the newest last."""
        return read_digests(self._revoked_path)

    def note_uses(self, uses: Mapping[str, float]) -> None:
        """Write the last uses, by digest, as far as they are news; those of revoked tokens go."""
        with exclusive_lock(self._lock_path):
            known = read_uses(self._uses_path)
            if all(used < known.get(digest, 0.0) + USE_SECONDS for digest, used in uses.items()):
                return
            latest = {digest: max(used, known.get(digest, 0.0)) for digest, used in uses.items()}
            here = {each.sha256 for each in self.all()}
            merged = {**known, **latest}
            write_uses(self._uses_path, {digest: merged[digest] for digest in merged if digest in here})

    def _remove(self, tokens: list[TokenEntry], gone: list[str]) -> None:
        """Remove tokens, after it is durable that they were revoked: other mirrors are told by that."""
        known = [each for each in self.revoked() if each not in gone]
        write_digests(self._revoked_path, [*known, *gone][-MOST_REVOKED:])
        self._write([each for each in tokens if each.sha256 not in gone])

    def _write(self, tokens: list[TokenEntry]) -> None:
        write_tokens(self._path, tokens)
        self._epoch.note_access_change()
