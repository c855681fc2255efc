"""Cache folder with any number of small blobs, made by the store itself: ten blobs for each tag.

Every image is made from its number, so that no list of images is needed.
"""

import json
import random
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mirror.cache.manifests import links_of
from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST, parse_manifest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.links.content import StoredManifest
from mirror.store.metadata.index import Link, TagEntry
from tests.e2e.images import OCI_CONFIG, OCI_LAYER

# Blobs of an image: its manifest, its config, and layers.
BLOBS = 10
LAYERS = BLOBS - 2

# Tags per repository.
TAGS = 100

# Images per transaction.
BATCH = 50

# Last uses lie within this span, in seconds, at random.
MONTH = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Image:
    repository: Repository
    tag: Tag
    manifest: StoredManifest
    blobs: dict[Digest, bytes]

    @property
    def by_tag(self) -> str:
        return f"/v2/{self.repository.path}/manifests/{self.tag}"

    @property
    def layer(self) -> str:
        """Path of the last layer."""
        return f"/v2/{self.repository.path}/blobs/{list(self.blobs)[-1]}"


def image(number: int) -> Image:
    repository = Repository("docker.io", f"bench/r{number // TAGS:05}")
    config = json.dumps({"architecture": "amd64", "os": "linux", "number": number}).encode()
    layers = [f"layer {each} of image {number}\n".encode() for each in range(LAYERS)]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(OCI_CONFIG, config),
        "layers": [_descriptor(OCI_LAYER, layer) for layer in layers],
    }
    data = json.dumps(document).encode()
    manifest = StoredManifest(data, Digest.of(data), OCI_MANIFEST)
    blobs = {Digest.of(each): each for each in (config, *layers)}
    return Image(repository, Tag(f"v{number % TAGS}"), manifest, blobs)


def make(path: Path, count: int) -> None:
    """Make `count` blobs, all linked, and last used some time in the last month."""
    numbers = iter(range(count // BLOBS))
    with closing(CacheDirectory(path, CacheSettings(dir=path, durability="fast"))) as folder:
        while batch := list(islice(numbers, BATCH)):
            put_images(folder, [image(number) for number in batch])


def put_images(folder: CacheDirectory, images: Sequence[Image]) -> None:
    blobs = {digest: data for each in images for digest, data in each.blobs.items()}
    put_blobs(folder, blobs | {each.manifest.digest: each.manifest.data for each in images})
    now = time.time()
    with folder.index.database.cache.transact():
        for each in images:
            manifest = each.manifest
            links = links_of(parse_manifest(manifest.data, manifest.media_type)) | {
                manifest.digest: Link(manifest.media_type, len(manifest.data))
            }
            folder.index.add_links(each.repository, links)
            entry = TagEntry(str(manifest.digest), manifest.media_type, len(manifest.data), now)
            folder.index.put_tag(each.repository, each.tag, entry)
    chance = random.Random(str(images[0].manifest.digest))
    every = (digest for each in images for digest in (each.manifest.digest, *each.blobs))
    folder.blobs.table.touch({digest: now - 60 - chance.random() * MONTH for digest in every})


def put_blobs(folder: CacheDirectory, blobs: dict[Digest, bytes]) -> None:
    """Put small blobs as a fill does: take a lease for each, then store all."""
    claims = folder.fills.acquire_leases(list(blobs))
    folder.writer.put_small_blobs(
        [(claim, blobs[claim.digest], Origin.PUBLIC) for claim in claims if claim is not None]
    )


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(data), "digest": str(Digest.of(data))}
