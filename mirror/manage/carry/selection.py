"""Selection of what to export: images, platforms, referrers, and what the receiver has."""

from collections.abc import Container

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern

# The word for all platforms of an index, whether they are here or not.
EVERY_PLATFORM = "all"

NOTHING: Container[Digest] = frozenset()


class Selection(Struct, frozen=True):
    """The images to export.

    `platforms`: those of an index that must be here, `("all",)` for every one; empty for those that are here.
    `referrers`: signatures, attestations and SBOMs come along. `assumed`: digests of blobs that the receiver
    has, which are not carried.
    """

    images: tuple[ImagePattern, ...]
    platforms: tuple[str, ...] = ()
    referrers: bool = True
    assumed: Container[Digest] = NOTHING

    @property
    def named_platforms(self) -> tuple[str, ...]:
        """The platforms to select of an index; empty for all that are here, or all that there are."""
        return () if self.every_platform else self.platforms

    @property
    def every_platform(self) -> bool:
        """Return whether every platform of an index must be here."""
        return EVERY_PLATFORM in self.platforms

    @property
    def requires_platforms(self) -> bool:
        """Return whether a platform that is selected must be here."""
        return bool(self.platforms)
