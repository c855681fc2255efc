"""Manifests and indexes, read for what they name and never written again (invariant 9).

Lenient by intent: any artifact passes, and a media type that is not known is looked at for the same
fields. What is nonsense raises ManifestInvalid; such a manifest is still served as it is, and links nothing.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Tag

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"

# What is asked of upstreams, always all of it: with less, distribution answers 404 for OCI content and
# rewrites lists, and quay converts to schema 1. Schema 1 itself is never asked for.
ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)

# The size the distribution-spec obliges registries to take ("Pushing Manifests"); clients read no more.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024


class ManifestInvalid(ValueError):
    """The bytes are no manifest that could be understood."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """OCI image-spec, "Descriptor". `size` in bytes; `urls` is set for foreign layers."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...]
    raw: Mapping[str, Any]

    @property
    def platform(self) -> str | None:
        """`os/architecture[/variant]`, where an index tells it."""
        return platform_of(self.raw.get("platform"))


def platform_of(value: object) -> str | None:
    """Of the object that an index has for it, or of an image's config, which has the same keys."""
    if not isinstance(value, Mapping):
        return None
    words = [value.get(key) for key in ("os", "architecture", "variant")]
    if not all(isinstance(each, str) for each in words[:2]):
        return None
    return "/".join(each for each in words if isinstance(each, str) and each)


@dataclass(frozen=True, slots=True)
class Manifest:
    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None

    @property
    def is_index(self) -> bool:
        return self.media_type in (OCI_INDEX, DOCKER_LIST)

    def children(self) -> tuple[Descriptor, ...]:
        """What the manifest is made of: config, layers, manifests, each digest once."""
        config = () if self.config is None else (self.config,)
        return tuple({each.digest: each for each in (*config, *self.layers, *self.manifests)}.values())


def parse_manifest(data: bytes, media_type: str) -> Manifest:
    """Raises ManifestInvalid. Schema 1 has none of the fields, and so no children."""
    fields = _object(data)
    return Manifest(
        media_type=media_type,
        config=_optional(fields, "config"),
        layers=_list(fields, "layers"),
        manifests=_list(fields, "manifests"),
        subject=_optional(fields, "subject"),
    )


def referrers_index(manifests: Iterable[Mapping[str, Any]]) -> bytes:
    """An OCI index of descriptors: the answer of the referrers API."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
    return json.dumps(index, separators=(",", ":")).encode()


def referrers_of(data: bytes) -> list[dict[str, Any]]:
    """The descriptors of an OCI index. ManifestInvalid when it is none."""
    fields = _object(data)
    manifests = fields.get("manifests")
    if not isinstance(manifests, list) or fields.get("mediaType", OCI_INDEX) != OCI_INDEX:
        raise ManifestInvalid("not an OCI index")
    for each in manifests:
        _descriptor(each)
    return manifests


def descriptors_of(manifests: Iterable[Mapping[str, Any]]) -> list[Descriptor]:
    """Those among them that are descriptors."""
    found = []
    for each in manifests:
        with suppress(ManifestInvalid):
            found.append(_descriptor(each))
    return found


def filter_referrers(
    manifests: Iterable[dict[str, Any]], artifact_types: Collection[str]
) -> list[dict[str, Any]]:
    """Those of any of these types."""
    return [each for each in manifests if each.get("artifactType") in artifact_types]


def referrers_tag(digest: Digest) -> Tag:
    """OCI distribution-spec, "Referrers Tag Schema": both parts cut, other characters as dashes."""
    text = f"{digest.algorithm[:32]}-{digest.encoded[:64]}"
    return Tag.parse(re.sub(r"[^a-zA-Z0-9._-]", "-", text))


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
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
    # bool is an int in Python, and a size of `true` is nonsense all the same.
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise ManifestInvalid("a descriptor's size is not a number of bytes")
    if not isinstance(media_type, str) or not isinstance(urls, list):
        raise ManifestInvalid("a descriptor's mediaType or urls is of the wrong type")
    try:
        digest = Digest.parse(str(value.get("digest")))
    except RegistryError as error:
        raise ManifestInvalid(error.message) from error
    return Descriptor(media_type, digest, size, tuple(str(url) for url in urls), value)
