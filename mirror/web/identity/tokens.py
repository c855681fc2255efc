"""Tokens of this mirror as credentials: Bearer, password of Basic, and secret path.

A wrong one costs a comparison of its checksum, or one hash: no look at the disk, and no request upstream.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mirror.access.secret_path import misplaced_secret, secret_path
from mirror.access.tokens import TokenEntry, has_secret, is_token, is_well_formed
from mirror.cache.results import FOREVER
from mirror.oci.errors import Code
from mirror.oci.reference import PATH_LENGTH
from mirror.store.cache_dir import CacheDirectory
from mirror.web.access_control import AccessDenied
from mirror.web.identity.credentials import BEARER, Authenticator, Claim, Credentials, WrongCredentials

if TYPE_CHECKING:
    from mirror.store.tokens.live_tokens import LiveTokens


# Beginning of the handles of tokens; the digest of the secret follows.
HANDLE = "token:"


class TokenAuthenticator(Authenticator):
    """The tokens of the cache folder. Nothing is imported or read before a client shows one."""

    def __init__(self, folder: CacheDirectory, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._opening = asyncio.Lock()
        self._tokens: LiveTokens | None = None

    async def claim(self, shown: Credentials) -> Claim | None:
        """Return what a token proves. Raises WrongCredentials, and AccessDenied (404) for a path."""
        path = secret_path(shown.path)
        rest = shown.path if path is None else path.rest
        if len(rest) <= PATH_LENGTH and misplaced_secret(rest):  # a longer one is refused in any case
            raise _denied("a token stands in the path where none is taken: write /t/TOKEN in front of /v2/")
        header = _secret_of_header(shown)
        if path is not None:
            entry, wrong = await self._look_up(path.secret)
            if entry is None or wrong:
                raise _denied(f"the secret in the path is not good: {wrong}")
            return self._claim(entry, path.prefix)
        if header is None:
            return None
        entry, wrong = await self._look_up(header)
        if entry is None or wrong:
            raise WrongCredentials(f"the token is not good: {wrong}", ours=True)
        return self._claim(entry)

    async def recall(self, handle: str) -> Claim | None:
        """Return the claim of a token as of now; None for one that was revoked or has expired."""
        if not handle.startswith(HANDLE):
            return None
        entry = await (self._tokens or await self._open()).recall(handle.removeprefix(HANDLE))
        return None if entry is None or entry.has_expired(self._clock()) else self._claim(entry)

    async def close(self) -> None:
        """Write the last uses."""
        if self._tokens is not None:
            await self._tokens.close()

    async def _look_up(self, secret: str) -> tuple[TokenEntry | None, str]:
        """Return the token, and what is wrong with it or with the secret; "" for nothing."""
        if not is_well_formed(secret):
            return None, "its checksum is wrong, so that it is mistyped or cut off"
        entry = await (self._tokens or await self._open()).find(secret)
        if entry is None:
            return None, "it is not known here, or was revoked"
        if entry.has_expired(self._clock()):
            return entry, f"{entry.name} has expired"
        return entry, ""

    def _claim(self, entry: TokenEntry, prefix: str = "") -> Claim:
        if self._tokens is not None:
            self._tokens.note_use(entry)
        seconds = FOREVER if entry.expires is None else entry.expires - self._clock()
        return Claim(
            (entry.principal,),
            seconds,
            f"{HANDLE}{entry.sha256}",
            path_prefix=prefix,
            restrictions=entry.restrictions,
        )

    async def _open(self) -> "LiveTokens":
        async with self._opening:
            if self._tokens is None:
                self._tokens = await asyncio.to_thread(_live_tokens, self._folder)
            return self._tokens


def _secret_of_header(shown: Credentials) -> str | None:
    """Return the token in the Authorization header: as Bearer, or as the password of any user.

    What only holds one is a wrong token, too: other authenticators would log it as a user's name, or ask an
    upstream about it. Raises WrongCredentials for one in the place of the user.
    """
    if shown.login is not None and has_secret(shown.login.user):
        raise WrongCredentials(
            "a token is in the place of the user: give it as the password, with any user", ours=True
        )
    text = shown.value if shown.scheme == BEARER else "" if shown.login is None else shown.login.password
    return text if is_token(text) or has_secret(text) else None


def _denied(message: str) -> AccessDenied:
    return AccessDenied(Code.NAME_UNKNOWN, message, 404, f"denied: {message}")


def _live_tokens(folder: CacheDirectory) -> "LiveTokens":
    from mirror.store.tokens.live_tokens import LiveTokens

    return LiveTokens(folder.path, folder.epoch)
