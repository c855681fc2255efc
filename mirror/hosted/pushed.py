"""Pushed manifests: what a registry checks of them before they are kept (OCI distribution-spec, "Pushing
Manifests"), and the descriptor by which a list of referrers names them. Pure.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MOST_DESCRIPTORS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    ManifestInvalid,
    ManifestTooLong,
    manifest_of,
)
from mirror.oci.media_type import is_media_type

# Schema 1 has signatures inside, names no sizes, and is pushed by no client of today.
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

# Longest descriptor, in bytes, for a list of referrers: annotations are copied into it.
LONGEST_DESCRIPTOR = 60 * 1024


class CheckedManifest(Struct, frozen=True):
    """A manifest that may be kept, once what it names is in the repository.

    `blobs` and `manifests`: what it names. `subject`: what it refers to, with its own `descriptor` as JSON.
    """

    digest: Digest
    media_type: str
    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]
    subject: Digest | None
    descriptor: str


def check_manifest(data: bytes, content_type: str | None, algorithm: str, most: int) -> CheckedManifest:
    """Return what is to be kept of a pushed manifest. `content_type`: as the client sends it.

    `most`: bytes. Raises RegistryError MANIFEST_INVALID (400), SIZE_INVALID (413).
    """
    if len(data) > most:
        message = f"the manifest has {len(data)} bytes, and this registry takes {most} (max_manifest)"
        raise RegistryError(Code.SIZE_INVALID, message, status=413)
    fields = _fields(data)
    media_type = _media_type(fields, content_type)
    manifest = _parsed(fields, media_type)
    if media_type in IMAGES and manifest.config is None:
        raise _invalid(f"a manifest of type {media_type} has a config")
    if media_type in INDEXES and not isinstance(fields.get("manifests"), list):
        raise _invalid(f"an index of type {media_type} has a list of manifests")
    digest = Digest.of(data, algorithm)
    config = () if manifest.config is None else (manifest.config,)
    subject = None if manifest.subject is None else manifest.subject.digest
    return CheckedManifest(
        digest,
        media_type,
        blobs=_unique(each for each in (*config, *manifest.layers) if each.is_pushed),
        manifests=_unique(manifest.manifests),
        subject=subject,
        descriptor="" if subject is None else _descriptor(fields, manifest, digest, len(data)),
    )


def _fields(data: bytes) -> Mapping[str, Any]:
    try:
        fields = json_text.parse(data)
    except json_text.TooManyValues as error:
        raise _invalid(f"the manifest is too long: {error}") from None
    except ValueError:
        raise _invalid("the manifest is not JSON") from None
    if not isinstance(fields, dict):
        raise _invalid("the manifest is not a JSON object")
    return fields


def _media_type(fields: Mapping[str, Any], content_type: str | None) -> str:
    """Return the type of a manifest: that of the header, without parameters, or else its own word."""
    own = fields.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise _invalid("the mediaType of the manifest is no text")
    given = (content_type or "").partition(";")[0].strip()
    if given and own and given != own:
        raise _invalid(f"the Content-Type is {given:.100}, and the manifest says mediaType {own:.100}")
    media_type = given or own or ""
    if not is_media_type(media_type):
        raise _invalid("the manifest has no media type: send it as the Content-Type")
    if media_type.startswith(SCHEMA_1):
        raise _invalid("manifests of Docker's schema 1 are not taken: push schema 2 or OCI")
    return media_type


def _parsed(fields: Mapping[str, Any], media_type: str) -> Manifest:
    try:
        return manifest_of(fields, media_type)
    except ManifestTooLong:
        raise _invalid(
            f"the manifest names more than {MOST_DESCRIPTORS} contents, or has too many values"
        ) from None
    except ManifestInvalid as error:
        raise _invalid(f"the manifest cannot be read: {error}") from None


def _unique(descriptors: Iterable[Descriptor]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(each.digest for each in descriptors))


def _descriptor(fields: Mapping[str, Any], manifest: Manifest, digest: Digest, size: int) -> str:
    """Return the descriptor for the list of referrers (OCI distribution-spec, "Listing Referrers")."""
    found: dict[str, Any] = {"mediaType": manifest.media_type, "digest": str(digest), "size": size}
    artifact_type = fields.get("artifactType")
    if isinstance(artifact_type, str) and artifact_type:
        found["artifactType"] = artifact_type
    elif manifest.config is not None and not manifest.is_index:
        found["artifactType"] = manifest.config.media_type
    annotations = fields.get("annotations")
    if isinstance(annotations, dict):
        texts = {key: value for key, value in annotations.items() if isinstance(value, str)}
        found |= {"annotations": texts} if texts else {}
    text = json.dumps(found, separators=(",", ":"))
    if len(text) > LONGEST_DESCRIPTOR:
        raise _invalid(
            f"the annotations of a manifest with a subject take more than {LONGEST_DESCRIPTOR} bytes"
        )
    return text


def _invalid(message: str) -> RegistryError:
    return RegistryError(Code.MANIFEST_INVALID, message, status=400)
