"""Images to fetch, from their names as people write them: by tag, digest, pattern of tags, or range; pure."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from msgspec import Struct

from mirror.manage.warm.versions import OPERATOR, VersionRange
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, is_literal
from mirror.oci.reference import COMPONENT, TAG, Repository, Tag

# A range of versions behind a name. A port is digits, and no range begins with a digit.
_RANGE = re.compile(rf"(?P<name>[^\s<>=!~^]+):\s*(?P<range>{OPERATOR.pattern}.*)")

# Tags that are made of a digest, of signatures and the like: no pattern means them.
_REFERRING = re.compile(r"(sha256|sha512)-[0-9a-f]{64}(\..+)?")


class TagPattern(Struct, frozen=True):
    """A pattern of tags: `3.*`."""

    text: str

    def select(self, tags: Iterable[str]) -> list[str]:
        """Return the tags that match."""
        return [each for each in tags if fnmatchcase(each, self.text) and not _REFERRING.fullmatch(each)]


class WarmImage(Struct, frozen=True):
    """An image to fetch, or several: those of the tags that `tags` selects."""

    repository: Repository
    reference: Tag | Digest | None = None
    tags: TagPattern | VersionRange | None = None

    def __str__(self) -> str:
        if isinstance(self.reference, Digest):
            return f"{self.repository}@{self.reference}"
        wanted = self.tags.text if self.tags is not None else self.reference
        return f"{self.repository}:{wanted}"

    def of_tag(self, tag: str) -> "WarmImage":
        """Return the image of one of the selected tags."""
        return WarmImage(self.repository, Tag(tag))


def parse_image(text: str, names: Mapping[str, str]) -> WarmImage:
    """Parse the name of an image. Raises ValueError with a message for its author.

    `names` maps the names and aliases of the configured upstreams to canonical names. With tag and digest the
    digest counts, as for every client.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is not None:
        chosen = VersionRange.parse(found["range"].strip())
        return WarmImage(_repository(ImagePattern.parse(found["name"], names), text, names), tags=chosen)
    pattern = ImagePattern.parse(text.strip(), names)
    repository = _repository(pattern, text, names)
    if pattern.digest is not None:
        return WarmImage(repository, pattern.digest)
    if not is_literal(pattern.tag):
        return WarmImage(repository, tags=TagPattern(pattern.tag))
    if TAG.fullmatch(pattern.tag) is None:
        raise ValueError(f"{text!r}: {pattern.tag!r} is not a tag")
    return WarmImage(repository, Tag(pattern.tag))


def _repository(pattern: ImagePattern, text: str, names: Mapping[str, str]) -> Repository:
    upstream, _, path = pattern.name.replace("[[]", "[").partition("/")
    if not path or any(COMPONENT.fullmatch(each) is None for each in path.split("/")):
        raise ValueError(f"{text!r} must name one repository: only its tag may be a pattern")
    if upstream not in names.values():
        known = ", ".join(sorted(set(names.values())))
        raise ValueError(f"{text!r}: {upstream} is not configured; the upstreams are {known}")
    return Repository(upstream, path)
