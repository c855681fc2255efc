"""Credentials of a client for an upstream, as its Authorization header has them.

Kept nowhere: tasks that work for the client's request refer to them, and tables have a keyed hash.
"""

import base64
import binascii
import hashlib
import re
import secrets

from msgspec import Struct

# Characters of an Authorization header that are read: a token of a registry has some thousand.
LONGEST = 16 * 1024

# A header of one scheme and one value. Control characters, and bytes beyond ASCII, are in neither.
HEADER = re.compile(r"(basic|bearer) +([!-~]+)", re.IGNORECASE)

# The key of the hashes, of this process.
KEY = secrets.token_bytes(32)


class GuestLogin(Struct, frozen=True):
    """User and password, or a token that the upstream's own token server has issued."""

    user: str = ""
    password: str = ""
    token: str = ""

    @classmethod
    def parse(cls, header: str) -> "GuestLogin | None":
        """Return what an Authorization header has; None for nobody, and for what is not to be read."""
        found = HEADER.fullmatch(header.strip()) if len(header) <= LONGEST else None
        if found is None:
            return None
        if found[1].lower() == "bearer":
            return cls(token=found[2])
        try:
            user, colon, password = base64.b64decode(found[2], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        # RFC 7617 2 allows no control character; `Basic Og==` is how Podman and Skopeo say nobody.
        if not (user and colon and password) or re.search(r"[\x00-\x1f\x7f]", user + password):
            return None
        return cls(user, password)

    def key(self) -> bytes:
        """Return a keyed hash of the credentials: the key of what is remembered about them."""
        text = "\0".join((self.user, self.password, self.token)).encode()
        return hashlib.blake2b(text, key=KEY, digest_size=32).digest()

    def redacted(self, text: str) -> str:
        """Return `text` without the password or token."""
        for secret in filter(None, (self.password, self.token)):
            text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
