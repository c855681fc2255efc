"""Image patterns as people write them: `alpine`, `docker.io/library/alpine:3.20`, `quay.io/org/*:v*`.

A star matches slashes too, as everywhere in the configuration. Defaults are Docker's: the registry is
docker.io, its namespace is `library`, and the tag is `latest`. A name with a star in it defaults to every
tag.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import DOCKER_HUB, HUB_NAMESPACE, Repository
from mirror.oci.registries import canonical_host

# Characters of a name, a tag and a host, and the wildcards of a pattern.
NAME = re.compile(r"[a-z0-9._*?\[\]!-]+")
TAG = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}")
HOST = re.compile(r"([a-z0-9.*?\[\]!-]+|\[\[\][0-9a-f:.]+\])(:[0-9*]{1,5})?")
ADDRESS = re.compile(r"\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\](:[0-9]{1,5})?(?=/|$)")
WILD = re.compile(r"[*?\[]")

PLATFORM = re.compile(r"[a-z0-9_]+/[a-z0-9_]+(/[a-z0-9_.]+)?")

NO_NAMES: Mapping[str, str] = MappingProxyType({})


class ImagePattern(Struct, frozen=True, order=True):
    """A pattern of images: `name` matches `<upstream>/<repository>`, and `tag` or `digest` the image.

    An image without a tag has the tag "", which only `*` matches.
    """

    name: str
    tag: str = "*"
    digest: Digest | None = None

    @classmethod
    def parse(
        cls, text: str, names: Mapping[str, str] = NO_NAMES, *, any_tag: bool = False
    ) -> "ImagePattern":
        """Parse a pattern that a person wrote. Raises ValueError with a message for that person.

        `names` maps the names and aliases of registries to canonical names. `any_tag`: a pattern without a
        tag means every tag rather than `latest`.
        """
        rest, at, encoded = text.partition("@")
        name, tag = _split_tag(rest)
        if not at and _is_digest(name, tag):
            return cls("*", digest=_digest(f"{name}:{tag}"))
        name = _full_name(name, names) if name or not at else "*"
        if at:
            return cls(name, digest=_digest(encoded))
        if tag is None:
            tag = "*" if any_tag or WILD.search(name.replace("[[]", "")) else "latest"
        if TAG.fullmatch(tag) is None:
            raise ValueError(f"{text!r}: {tag!r} is neither a tag nor a pattern of tags")
        return cls(name, tag)

    @classmethod
    def printed(cls, text: str) -> "ImagePattern":
        """Parse the output of `str`, which does not depend on the configured upstreams. Raises ValueError."""
        name, at, encoded = text.partition("@")
        if at:
            return cls(name, digest=_digest(encoded))
        name, colon, tag = text.rpartition(":")
        if not colon or TAG.fullmatch(tag) is None:
            raise ValueError(f"{text!r} is not a pattern")
        return cls(name, tag)

    def of(self, repository: Repository) -> bool:
        """Return whether any image of the repository can match."""
        return fnmatchcase(str(repository), self.name)

    def match(self, repository: Repository, tag: str, digest: str) -> bool:
        """Return whether the image with this tag ("" for none) and digest matches."""
        if not self.of(repository):
            return False
        return fnmatchcase(tag, self.tag) if self.digest is None else digest == str(self.digest)

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" if self.digest is None else f"{self.name}@{self.digest}"


class Pin(Struct, frozen=True, order=True):
    """A pattern of images that eviction spares.

    `platforms` limits the pin of an index to some platforms, such as `linux/arm64`. Empty: all platforms.
    """

    images: ImagePattern
    platforms: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, names: Mapping[str, str] = NO_NAMES) -> "Pin":
        """Parse `PATTERN [PLATFORM ...]`. Raises ValueError with a message for the pin's author."""
        pattern, *platforms = text.split() or [""]
        return cls.of(pattern, platforms, names)

    @classmethod
    def of(cls, pattern: str, platforms: list[str], names: Mapping[str, str] = NO_NAMES) -> "Pin":
        """Make a pin of its parts. Raises ValueError; a wrong pattern is reported before a wrong platform."""
        images = ImagePattern.parse(pattern, names)
        for each in platforms:
            if PLATFORM.fullmatch(each) is None:
                raise ValueError(f"{each!r} is not a platform, for instance linux/amd64 or linux/arm/v7")
        return cls(images, tuple(dict.fromkeys(platforms)))

    def __str__(self) -> str:
        return " ".join((str(self.images), *self.platforms))


def literal(pattern: str) -> str:
    """Return the part of the pattern before its first wildcard, with which every match begins."""
    return WILD.split(pattern, maxsplit=1)[0]


def escaped_address(pattern: str) -> str:
    """Return the pattern with the IPv6 address that it begins with, if any, as text and not as a wildcard."""
    found = ADDRESS.match(pattern)
    address = canonical_host(found[0]) if found else None
    return pattern if found is None or address is None else f"[[]{address[1:]}{pattern[found.end() :]}"


def is_literal(pattern: str) -> bool:
    """Return whether the pattern has no wildcard, so that only the same text matches."""
    return WILD.search(pattern) is None


def on_platform(platform: str, wanted: tuple[str, ...]) -> bool:
    """Return whether `os/architecture[/variant]` is among `wanted`.

    `linux/arm` includes every variant of arm. An empty `wanted` includes every platform.
    """
    return not wanted or any(platform == each or platform.startswith(f"{each}/") for each in wanted)


def _split_tag(text: str) -> tuple[str, str | None]:
    """Split name and tag. A colon before a slash belongs to a port."""
    name, colon, tag = text.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (text, None)


def _is_digest(name: str, tag: str | None) -> bool:
    return name in ("sha256", "sha512") and tag is not None and len(tag) >= 64


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except RegistryError as error:
        raise ValueError(error.message) from None


def _full_name(name: str, names: Mapping[str, str]) -> str:
    """Return the name with its upstream and, at Docker Hub, its namespace, as distribution/reference does."""
    first, slash, rest = name.partition("/")
    host = first.lower()
    if slash and (host in names or any(mark in host for mark in ".:*") or host == "localhost"):
        host = names.get(host, host)
    elif name == "*":
        return name
    else:
        host, rest = DOCKER_HUB, name
    if host == DOCKER_HUB and "/" not in rest and rest != "*":
        rest = f"{HUB_NAMESPACE}/{rest}"
    host = escaped_address(host)
    if HOST.fullmatch(host) is None or any(NAME.fullmatch(each) is None for each in rest.split("/")):
        raise ValueError(
            f"{name!r} is not the name of an image: lower-case letters and digits, as in "
            "docker.io/library/alpine:3.20, or a pattern, as in quay.io/org/*:v*"
        )
    return f"{host}/{rest}"
