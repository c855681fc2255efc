"""Tokens of clients, as operators create, list and revoke them."""

import time

from msgspec import Struct

from mirror.access.rules import Action
from mirror.access.tokens import TokenEntry, digest_of, new_secret
from mirror.store.cache_dir import CacheDirectory
from mirror.store.tokens.token_store import TokenStore


class WantedToken(Struct, frozen=True):
    """The token that is to be created. `seconds`: its life, None for no end.

    `repositories`, `actions`: as in TokenEntry.
    """

    name: str
    seconds: float | None = None
    repositories: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()


def tokens_of(folder: CacheDirectory) -> TokenStore:
    """Return the tokens of a cache folder."""
    return TokenStore(folder.path, folder.epoch)


def create_token(folder: CacheDirectory, wanted: WantedToken) -> tuple[str, TokenEntry]:
    """Create a token; return its secret, and what is stored of it. Raises TokenExists, OSError."""
    secret, now = new_secret(), time.time()
    expires = None if wanted.seconds is None else now + wanted.seconds
    entry = TokenEntry(wanted.name, digest_of(secret), now, expires, wanted.repositories, wanted.actions)
    tokens_of(folder).add(entry)
    return secret, entry
