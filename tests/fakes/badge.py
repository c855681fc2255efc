"""Authenticator for tests: `Authorization: Badge NAME` proves `user:NAME`, for the names that it knows."""

from collections.abc import Iterable

from mirror.cache.results import FOREVER
from mirror.web.identity.credentials import Authenticator, Claim, Credentials, WrongCredentials


class Badge(Authenticator):
    """Authenticator of the names in `known`; a badge is right for `seconds`."""

    def __init__(self, known: Iterable[str] = ("alice", "bob"), seconds: float = FOREVER) -> None:
        self.known = set(known)
        self._seconds = seconds

    async def claim(self, shown: Credentials) -> Claim | None:
        if shown.scheme != "badge":
            return None
        if shown.value not in self.known:
            raise WrongCredentials("no such badge")
        return Claim((f"user:{shown.value}",), self._seconds)
