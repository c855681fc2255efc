"""Reader of manifests and indexes, for the descriptors in them. Manifests are never rewritten (invariant 9).

The reader is lenient by intent: it accepts any artifact, and reads the same fields of an unknown media type.
A malformed manifest raises ManifestInvalid, one that names very much ManifestTooLong. The mirror still serves
such a manifest as received, without links.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct

from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Tag

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"

# Accept header of every manifest request to an upstream. Always send the whole list: with fewer types,
# distribution answers 404 for OCI content and rewrites lists, and quay converts to schema 1. Schema 1 itself
# is never requested.
ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)

# The distribution-spec obliges registries to accept manifests of this size ("Pushing Manifests"), and clients
# read no more.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024


# Marks of media types of layers that are not pushed to a registry: they are had from elsewhere.
NOT_PUSHED = (".nondistributable.", ".foreign.")

# Most descriptors that are read of a manifest. No image that runs has as many: Docker stops at 125 layers,
# overlayfs at 500, and rpm-ostree makes images of up to 499. Each costs a row of the index.
MOST_DESCRIPTORS = 1024


class ManifestInvalid(ValueError):
    """The bytes are not a manifest that this module can read."""


class ManifestTooLong(ManifestInvalid):
    """The manifest has more values, or more descriptors, than are read."""


class Descriptor(Struct, frozen=True):
    """A descriptor of the OCI image-spec. `size` is in bytes; `urls` is set for foreign layers."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...]
    raw: Mapping[str, Any]

    @property
    def is_pushed(self) -> bool:
        """Return whether a client pushes the content; that of foreign layers comes from elsewhere."""
        return not self.urls and not any(mark in self.media_type for mark in NOT_PUSHED)

    @property
    def platform(self) -> str | None:
        """`os/architecture[/variant]`, if the index states the platform."""
        return platform_of(self.raw.get("platform"))


def platform_of(value: object) -> str | None:
    """Return `os/architecture[/variant]` of an index's platform object or an image's config (same keys)."""
    if not isinstance(value, Mapping):
        return None
    words = [value.get(key) for key in ("os", "architecture", "variant")]
    if not all(isinstance(each, str) for each in words[:2]):
        return None
    return "/".join(each for each in words if isinstance(each, str) and each)


class Manifest(Struct, frozen=True):
    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None

    @property
    def is_index(self) -> bool:
        return self.media_type in (OCI_INDEX, DOCKER_LIST)

    def children(self) -> tuple[Descriptor, ...]:
        """Return config, layers and manifests, each digest once."""
        config = () if self.config is None else (self.config,)
        return tuple({each.digest: each for each in (*config, *self.layers, *self.manifests)}.values())


def parse_manifest(data: bytes, media_type: str) -> Manifest:
    """Parse a manifest. Raises ManifestInvalid. Schema 1 has none of the fields, and so no children."""
    return manifest_of(_object(data), media_type)


def manifest_of(fields: Mapping[str, Any], media_type: str) -> Manifest:
    """Return the manifest that has the fields of a JSON object. Raises ManifestInvalid."""
    lists = [each for each in (fields.get("layers"), fields.get("manifests")) if isinstance(each, list)]
    if sum(map(len, lists)) > MOST_DESCRIPTORS:
        raise ManifestTooLong(f"more than {MOST_DESCRIPTORS} descriptors")
    return Manifest(
        media_type=media_type,
        config=_optional(fields, "config"),
        layers=_list(fields, "layers"),
        manifests=_list(fields, "manifests"),
        subject=_optional(fields, "subject"),
    )


def descriptors_of(manifests: Iterable[Mapping[str, Any]]) -> list[Descriptor]:
    """Return the valid descriptors among the objects."""
    found = []
    for each in manifests:
        with suppress(ManifestInvalid):
            found.append(_descriptor(each))
    return found


def check_descriptor(value: object) -> bool:
    """Return True for a valid descriptor. Raises ManifestInvalid for all else."""
    return bool(_descriptor(value))


def referrers_tag(digest: Digest) -> Tag:
    """Return the fallback tag of the OCI distribution-spec, "Referrers Tag Schema".

    The algorithm is cut to 32 characters and the hex to 64; characters that a tag cannot have become dashes.
    """
    text = f"{digest.algorithm[:32]}-{digest.encoded[:64]}"
    return Tag.parse(re.sub(r"[^a-zA-Z0-9._-]", "-", text))


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json_text.parse(data)
    except json_text.TooManyValues as error:
        raise ManifestTooLong(str(error)) from None
    except ValueError as error:
        raise ManifestInvalid(f"not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise ManifestInvalid("not a JSON object")
    return value


def _optional(fields: Mapping[str, Any], name: str) -> Descriptor | None:
    value = fields.get(name)
    return None if value is None else _descriptor(value)


def _list(fields: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    value = fields.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ManifestInvalid(f"{name} is not a list")
    return tuple(_descriptor(each) for each in value)


def _descriptor(value: object) -> Descriptor:
    if not isinstance(value, Mapping):
        raise ManifestInvalid("a descriptor is not a JSON object")
    media_type, size, urls = value.get("mediaType", ""), value.get("size"), value.get("urls") or []
    # bool is an int in Python, and a size of `true` is still invalid.
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise ManifestInvalid("a descriptor's size is not a number of bytes")
    digest_text = value.get("digest")
    if not isinstance(media_type, str) or not isinstance(urls, list) or not isinstance(digest_text, str):
        raise ManifestInvalid("a descriptor's mediaType, digest or urls is of the wrong type")
    try:
        digest = Digest.parse(digest_text)
    except RegistryError as error:
        raise ManifestInvalid(error.message) from error
    return Descriptor(
        media_type, digest, size, tuple(url if isinstance(url, str) else "" for url in urls), value
    )
