"""Content as the store gives it: a manifest, and the state of one repository and digest."""

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import OpenBlob, Origin
from mirror.store.metadata.index import Link


class StoredManifest(Struct, frozen=True):
    """A verified manifest, with the media type that its upstream gave, and the link of its repository.

    Without a `link` a manifest that is stored is only named. `origin`: as of its blob, when it is stored.
    """

    data: bytes
    digest: Digest
    media_type: str
    link: Link | None = None
    origin: Origin = Origin.UNKNOWN

    def stored_link(self) -> Link:
        """Return the link under which the manifest is stored."""
        return self.link or Link(self.media_type, len(self.data))


class LocalContent(Struct, frozen=True):
    """The state of one repository and digest on this disk.

    `present`: the bytes are here, perhaps through another repository only. The content comes only with a link
    that opens it (invariant 5): whole in `data` if it is small, else as the open `blob`. `unconfirmed`: the
    link does not open it, because only a manifest names the digest, and the content came with an account.
    """

    link: Link | None
    present: bool
    blob: OpenBlob | None = None
    data: bytes | None = None
    unconfirmed: bool = False

    @property
    def is_open(self) -> bool:
        """True if the content is here, and came with the link."""
        return self.data is not None or self.blob is not None

    def close(self) -> None:
        """Close the blob, if one is open."""
        if self.blob is not None:
            self.blob.file.close()
