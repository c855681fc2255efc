"""Digests of content (OCI image-spec, "Digests"), restricted to the registered algorithms."""

import hashlib
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.oci.errors import Code, RegistryError

if TYPE_CHECKING:
    from hashlib import _Hash

# Lower case only: go-digest refuses upper-case hex, and one digest must have one spelling.
ENCODED = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "sha512": re.compile(r"[0-9a-f]{128}"),
}

# The names of the algorithms, one text for all digests: a cache of a million blobs has a million of them.
NAMES = {name: name for name in ENCODED}


class Digest(Struct, frozen=True, order=True):
    """A digest: `algorithm` is sha256 or sha512, `encoded` is lower-case hex. Create with `parse` or `of`."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Parse `algorithm:encoded`. Raises RegistryError DIGEST_INVALID (400)."""
        algorithm, _, encoded = text.partition(":")
        pattern = ENCODED.get(algorithm)
        if pattern is None or pattern.fullmatch(encoded) is None:
            raise RegistryError(
                Code.DIGEST_INVALID,
                f"not a digest: {text[:150]!r}; expected sha256:<64> or sha512:<128 lower-case hex digits>",
            )
        return cls(NAMES[algorithm], encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> "Digest":
        """Return the digest of `data`."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def hasher(self) -> "_Hash":
        """Return a new hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"
