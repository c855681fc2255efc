"""Tokens of this mirror: opaque secrets that identify their bearer as `token:NAME`.

    rmt_  52 characters of base32 (256 random bits)  7 characters of base32 (CRC-32 of what is before)

The prefix tells scanners of repositories and logs what they found; the checksum tells a typing error from a
secret that is unknown, at the cost of no look-up. All characters are lower case: a secret may be a component
of a repository's name, as Podman writes the path of a mirror. Only the SHA-256 of a secret is kept: nobody
can guess 256 random bits, so that a slow or keyed hash would add nothing.
"""

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Iterable

from msgspec import Struct

from mirror.access.identity import Restriction
from mirror.access.rules import Action

PREFIX = "rmt_"

# Random bytes of a secret: nobody guesses them, whatever the rate.
SECRET_BYTES = 32
SECRET_CHARACTERS = 52
CHECKSUM_CHARACTERS = 7

FORM = re.compile(rf"{PREFIX}[a-z2-7]{{{SECRET_CHARACTERS + CHECKSUM_CHARACTERS}}}")

# Names are in the principal `token:NAME`, in rules, in the log and in tables.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# A secret, or a part of one, in a text that is to be shown.
TRACE = re.compile(rf"{PREFIX}[a-z0-9]+", re.IGNORECASE)

# Most of a secret, mistyped or cut off perhaps: no name of people has so many random characters.
NEARLY = re.compile(rf"{PREFIX}[a-z2-7]{{30,}}", re.IGNORECASE)


class TokenEntry(Struct, frozen=True):
    """A token without its secret. Moments in seconds since the epoch; `expires`: None for never.

    `sha256`: of the secret, in hexadecimal. `repositories` and `actions` restrict the bearer beyond the
    rules; an empty one restricts nothing.
    """

    name: str
    sha256: str
    created: float
    expires: float | None = None
    repositories: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()

    @property
    def principal(self) -> str:
        """The name by which rules know the bearer."""
        return f"token:{self.name}"

    def has_expired(self, now: float) -> bool:
        """Return whether the token is no longer good at `now`."""
        return self.expires is not None and now >= self.expires

    @property
    def restrictions(self) -> tuple[Restriction, ...]:
        """The token's own restrictions; none for a token without."""
        if not self.repositories and not self.actions:
            return ()
        return (Restriction(self.principal, self.repositories, self.actions),)


class TokenTable:
    """Tokens by the digests of their secrets."""

    def __init__(self, entries: Iterable[TokenEntry] = ()) -> None:
        self._by_digest = {each.sha256: each for each in entries}

    def __len__(self) -> int:
        return len(self._by_digest)

    def recall(self, digest: str) -> TokenEntry | None:
        """Return the token whose secret has this digest."""
        return self._by_digest.get(digest)

    def find(self, secret: str) -> TokenEntry | None:
        """Return the token of this secret, expired or not; None for a secret that is not known.

        The time that this takes tells nothing about a secret: it depends on digests, which a client cannot
        choose, and digests are compared in constant time.
        """
        if not is_well_formed(secret):
            return None
        digest = digest_of(secret)
        found = self._by_digest.get(digest)
        return found if found is not None and hmac.compare_digest(found.sha256, digest) else None


def new_secret() -> str:
    """Return a new secret."""
    return with_checksum(PREFIX + _base32(secrets.token_bytes(SECRET_BYTES)))


def with_checksum(text: str) -> str:
    """Return prefix and random characters of a secret with their checksum."""
    return text + _base32(zlib.crc32(text.encode()).to_bytes(4, "big"))


def is_token(text: str) -> bool:
    """Return whether a text claims to be a token of this mirror."""
    return text.startswith(PREFIX)


def is_well_formed(secret: str) -> bool:
    """Return whether a text can be a secret: its form and its checksum are right."""
    return FORM.fullmatch(secret) is not None and with_checksum(secret[:-CHECKSUM_CHARACTERS]) == secret


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a secret, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def has_secret(text: str) -> bool:
    """Return whether a secret, or most of one, is in a text."""
    return NEARLY.search(text) is not None


def redacted(text: str) -> str:
    """Return a text without the secrets in it."""
    return TRACE.sub(f"{PREFIX}...", text)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
