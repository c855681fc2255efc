"""Images put straight into a cache folder, as a pull would leave them there."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mirror.cache.manifests import links_of
from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST, ManifestInvalid, parse_manifest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.quota import IN_USE
from mirror.store.cache_dir import CacheDirectory
from mirror.store.links.content import StoredManifest
from mirror.store.metadata.index import TagEntry
from mirror.store.partial.partial import Partial
from tests.fakes.content import descriptor, image_index, image_manifest

X, Y = Repository("docker.io", "library/x"), Repository("quay.io", "org/y")
LONG_AGO = time.time() - 2 * IN_USE


def open_folder(path: Path, **settings: object) -> CacheDirectory:
    values = {"min_free": "0", **settings}
    return CacheDirectory(path, CacheSettings.model_validate({"dir": path, **values}))


def put_blob(folder: CacheDirectory, data: bytes) -> Digest:
    digest = Digest.of(data)
    path = folder.partials / f"small-{digest.encoded}"
    path.write_bytes(data)
    folder.blobs.add(VerifiedFile(digest, path, len(data), durable=False))
    return digest


def put_manifest(
    folder: CacheDirectory,
    repository: Repository,
    data: bytes,
    tag: str | None = None,
    media_type: str = OCI_MANIFEST,
) -> Digest:
    manifest = StoredManifest(data, Digest.of(data), media_type)
    parsed = None
    with suppress(ManifestInvalid):
        parsed = parse_manifest(manifest.data, manifest.media_type)
    folder.writer.put_manifest(repository, manifest, links_of(parsed))
    if tag is not None:
        folder.writer.put_tag(
            repository, Tag(tag), TagEntry(str(manifest.digest), media_type, len(data), time.time())
        )
    return manifest.digest


def put_image(
    folder: CacheDirectory,
    repository: Repository,
    tag: str | None,
    layers: Sequence[bytes],
    arch: str = "amd64",
) -> list[Digest]:
    """Put manifest, config and layers; the result is the same for equal arguments."""
    config = json.dumps({"os": "linux", "architecture": arch, "name": str(repository)}).encode()
    digests = [put_blob(folder, data) for data in (config, *layers)]
    return [put_manifest(folder, repository, image_manifest(config, list(layers)), tag), *digests]


def put_index(
    folder: CacheDirectory, repository: Repository, tag: str, images: Sequence[Sequence[bytes]]
) -> Digest:
    """Put an index over images of these layers, for linux/arch0, linux/arch1 ..., without the images."""
    manifests = [image_manifest(f"config{number}".encode(), list(each)) for number, each in enumerate(images)]
    return put_manifest(folder, repository, image_index(manifests), tag, OCI_INDEX)


def put_signature(
    folder: CacheDirectory, repository: Repository, subject: Digest, kind: str = "sig"
) -> list[Digest]:
    """Put a signature as cosign does: an image under a tag that is made of the subject's digest."""
    tag = f"{subject.algorithm}-{subject.encoded}.{kind}"
    return put_image(folder, repository, tag, [f"{kind} of {subject}".encode()], "none")


def listed(data: bytes) -> dict[str, object]:
    """Return the descriptor of a manifest in a list of referrers."""
    return {**descriptor(OCI_MANIFEST, data), "artifactType": "application/x"}


def interrupt(partial: Partial | None) -> None:
    """Leave a partial as a killed process does."""
    assert partial is not None
    partial._drop_map()
    os.close(partial.descriptor)
    os.close(partial._lock)


def age(folder: CacheDirectory, *digests: Digest) -> None:
    """Make blobs look unused for a while, the first one longest."""
    folder.blobs.table.touch({digest: LONG_AGO + number / 1000 for number, digest in enumerate(digests)})
