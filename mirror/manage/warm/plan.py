"""Plan of a run: which images, which parts of them, and whether they are pinned; pure."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from mirror.manage.warm.images import TagPattern, WarmImage
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin, escaped_address
from mirror.oci.platforms import parse_platforms

# Pulls of each upstream's rate limit that are left to others, if a plan does not say.
LEAVE = 50


class WarmPlan(Struct, frozen=True):
    """The images to fetch, of `platforms` (all, if there are none), with their referrers or without.

    `leave`: the pulls that are left of each rate limit.
    """

    images: tuple[WarmImage, ...]
    platforms: tuple[str, ...] = ()
    referrers: bool = False
    pin: bool = False
    leave: int = LEAVE

    @classmethod
    def of(
        cls,
        images: Sequence[WarmImage],
        platforms: Sequence[str],
        *,
        referrers: bool = False,
        pin: bool = False,
        leave: int = LEAVE,
    ) -> "WarmPlan":
        """Make a plan. Raises ValueError for what is no platform; without any, this machine's own counts."""
        return cls(tuple(images), parse_platforms(platforms), referrers, pin, leave)

    def pins(self, found: Iterable[WarmImage]) -> list[Pin]:
        """Return the pins that keep the images: patterns as they are, and `found` single images else."""
        if not self.pin:
            return []
        patterns = [each for each in self.images if isinstance(each.tags, TagPattern)]
        matched = {str(pattern.of_tag("").repository): pattern for pattern in patterns}
        single = [each for each in found if not _matches(matched.get(str(each.repository)), each)]
        return [Pin(_pattern(each), self.platforms) for each in (*patterns, *single)]


def _matches(pattern: WarmImage | None, image: WarmImage) -> bool:
    tags = None if pattern is None else pattern.tags
    return isinstance(tags, TagPattern) and bool(tags.select([str(image.reference)]))


def _pattern(image: WarmImage) -> ImagePattern:
    name = escaped_address(str(image.repository))
    if isinstance(image.reference, Digest):
        return ImagePattern(name, digest=image.reference)
    return ImagePattern(name, image.tags.text if image.tags is not None else str(image.reference))
