"""Tokens of clients, kept in a cache folder."""

from typing import TYPE_CHECKING

from mirror.manage.steps import Call, StepThread
from mirror.store.cache_dir import CacheDirectory

if TYPE_CHECKING:
    from mirror.access.tokens import TokenEntry
    from mirror.manage.tokens import WantedToken
    from mirror.store.tokens.token_store import ListedToken


class TokenManagement:
    """The tokens of a folder."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def create(self, wanted: "WantedToken") -> "Call[tuple[str, TokenEntry]]":
        """Create a token; return its secret, which is kept nowhere, and the rest. Raises TokenExists."""

        def create() -> "tuple[str, TokenEntry]":
            from mirror.manage.tokens import create_token

            return create_token(self._folder, wanted)

        return Call(self._worker, create)

    def all(self) -> "Call[list[ListedToken]]":
        """Return the tokens with their last use, sorted by name."""

        def find() -> "list[ListedToken]":
            from mirror.manage.tokens import tokens_of

            return tokens_of(self._folder).listed()

        return Call(self._worker, find)

    def revoke(self, name: str) -> Call[bool]:
        """Revoke a token in all workers at once; return whether there was such a token."""

        def revoke() -> bool:
            from mirror.manage.tokens import tokens_of

            return tokens_of(self._folder).remove(name)

        return Call(self._worker, revoke)
