"""Word of an upstream to one mirror, as text for the others, with a seal that only mirrors can make.

The seal is an HMAC-SHA256 by the secret of all mirrors, over key and text: content is proven by its digest,
but what a tag points to is proven by nothing else, and the store and the coordinator have other users.
"""

import hashlib
import hmac
import re

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.media_type import is_media_type

# The longest text that is read or written, in bytes: a longer list of referrers is not shared.
MAX_BYTES = 256 * 1024

_HEAD = re.compile(rb"1 ([0-9]{1,12}(?:\.[0-9]{1,9})?) (\S{1,200}) (-|[0-9]{1,16}) (-|[!-~]{1,255})\n")
_SEAL_LENGTH = 64
_NONE = "-"


class UpstreamWord(Struct, frozen=True):
    """The word of an upstream: what a tag points to, or that a repository has a digest, or a list.

    `confirmed`: when it was given, in seconds since the epoch. `digest`: None for "not found".
    `media_type`: None for a blob. `listing`: JSON text of referrers, which is not parsed here.
    """

    confirmed: float
    digest: Digest | None = None
    size: int | None = None
    media_type: str | None = None
    listing: str = ""

    def to_bytes(self) -> bytes:
        """Return the text, with the list behind the first line."""
        digest, size = self.digest or _NONE, _NONE if self.size is None else self.size
        head = f"1 {self.confirmed:.3f} {digest} {size} {self.media_type or _NONE}\n"
        return head.encode() + self.listing.encode()

    @classmethod
    def parse(cls, data: bytes) -> "UpstreamWord | None":
        """Return the word that a text is; None for another text, and for one of a later version."""
        match = _HEAD.match(data)
        if match is None:
            return None
        try:
            confirmed, digest, size, media_type = (each.decode("ascii") for each in match.groups())
        except UnicodeDecodeError:
            return None
        if media_type != _NONE and not is_media_type(media_type):
            return None
        try:
            return cls(
                float(confirmed),
                None if digest == _NONE else Digest.parse(digest),
                None if size == _NONE else int(size),
                None if media_type == _NONE else media_type,
                data[match.end() :].decode(),
            )
        except (RegistryError, UnicodeDecodeError):
            return None


class Seal:
    """The seal of all mirrors of a tier."""

    def __init__(self, secret: str) -> None:
        # A key of its own: a code that is made here is no proof at a mirror's listener.
        self._secret = hmac.new(secret.encode(), b"registry-mirror records", hashlib.sha256).digest()

    def wrap(self, key: str, data: bytes) -> bytes | None:
        """Return a text with its seal; None for one that is too long."""
        return self._code(key, data) + data if len(data) <= MAX_BYTES else None

    def unwrap(self, key: str, sealed: bytes) -> bytes | None:
        """Return the text, None unless a mirror has written it under this key."""
        if not _SEAL_LENGTH <= len(sealed) <= _SEAL_LENGTH + MAX_BYTES:
            return None
        code, data = sealed[:_SEAL_LENGTH], sealed[_SEAL_LENGTH:]
        return data if hmac.compare_digest(code, self._code(key, data)) else None

    def _code(self, key: str, data: bytes) -> bytes:
        return hmac.new(self._secret, key.encode() + b"\n" + data, hashlib.sha256).hexdigest().encode()
