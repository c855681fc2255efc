"""Two ends of a copy: a place to read an image from, and one to bring it to."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.reference import Tag

# Opens a blob from its beginning; called again for each attempt.
OpenBody = Callable[[], AsyncIterator[bytes]]


class CopyFailed(Exception):
    """An image cannot be copied; the message says why, and what to do."""


class CopiedManifest(Struct, frozen=True):
    """A manifest, byte for byte, as its digest proves."""

    data: bytes
    media_type: str


class CopySource(Protocol):
    """A repository to read from. Raises CopyFailed, UpstreamError and StoreError."""

    async def manifest(self, digest: Digest) -> CopiedManifest | None:
        """Return a manifest; None if it is not there."""

    def blob(self, digest: Digest, size: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a blob, which nobody has proven yet."""

    async def referrers(self, digest: Digest) -> list[Digest]:
        """Return the manifests that refer to one."""


class CopyTarget(Protocol):
    """A repository to bring content to. Raises CopyFailed, UpstreamError and StoreError."""

    async def digest_of(self, reference: Tag | Digest) -> Digest | None:
        """Return the digest of a manifest that is there."""

    async def has_blob(self, digest: Digest) -> bool:
        """Return whether the repository has a blob."""

    async def put_blob(self, digest: Digest, size: int, body: OpenBody) -> bool:
        """Bring a blob there; return True if no byte had to be sent."""

    async def put_manifest(self, reference: Tag | Digest, manifest: CopiedManifest) -> None:
        """Bring a manifest there, whose content is there already."""
