"""The documents that other programs read: oci-layout, index.json, and docker's manifest.json.

Programs disagree about archives of images. One full name in `io.containerd.image.name`, in
`org.opencontainers.image.ref.name` and in RepoTags is read alike by all of them: ctr reads index.json alone,
docker manifest.json alone, and podman the one or the other by the number of images.

- index.json names an image only if the tar has all that the image needs, apart from the platforms left out:
  ctr imports half an image without a word.
- Artifacts (charts, signatures) are named only in a bundle without images: ctr fails at an artifact, and
  podman refuses the archive. Referrers are never named. Both are in registry-mirror.json.
- manifest.json is written only if each named image has exactly one platform here: podman reads nothing else
  of an archive of several images, and would drop the others silently.
"""

from collections.abc import Callable

import msgspec

from mirror.bundle.errors import BundleError
from mirror.bundle.graph import Graph
from mirror.bundle.model import BundleImage
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX

LAYOUT = "oci-layout"
INDEX = "index.json"
DOCKER = "manifest.json"

# OCI image-spec, "oci-layout file".
LAYOUT_BYTES = b'{"imageLayoutVersion":"1.0.0"}'

CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"

# Longest index.json or manifest.json that is written or read: 27,000 images, or 90,000 blobs.
MOST_BYTES = 8 * 1024 * 1024

# Most blobs that manifest.json lists: more of them, with 79 bytes each, have no room in it.
MOST_BLOBS = 100_000

Present = Callable[[Digest], bool]


def blob_path(digest: Digest) -> str:
    """Return the path of a blob or a manifest in an OCI layout."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def named_images(images: list[BundleImage], graph: Graph, present: Present) -> list[BundleImage]:
    """Return the images that index.json names. `present`: whether the tar has a blob as a whole."""
    roots = {each.root.digest for each in images}  # many names may have one root
    whole = {root for root in roots if _is_whole(root, graph, present)}
    runnable = {root for root in roots if graph.images(root)}
    named = whole & runnable if runnable else whole
    return [each for each in sorted(images) if each.root.digest in named]


def index_json(images: list[BundleImage]) -> bytes:
    """Return index.json, with one descriptor for each name. Raises BundleError for more than MOST_BYTES."""
    data = msgspec.json.encode(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_descriptor(each) for each in images]}
    )
    if len(data) > MOST_BYTES:
        raise BundleError("too many images for one bundle: export some of them now, and the others then")
    return data


def manifest_json(images: list[BundleImage], graph: Graph) -> bytes | None:
    """Return manifest.json, or None if docker could not tell which platform of an image to load.

    None too for one that would be longer than MOST_BYTES: docker is not made for so many blobs, and the
    importer takes no longer one.
    """
    if sum(len(graph.reach(root).blobs) for root in {each.root.digest for each in images}) > MOST_BLOBS:
        return None
    entries: dict[Digest, dict[str, object]] = {}
    tags: dict[Digest, list[str]] = {}
    runnable = {root: graph.images(root) for root in {each.root.digest for each in images}}
    for image in images:
        found = runnable[image.root.digest]
        if len(found) != 1:
            return None
        entries[found[0]] = _docker_entry(found[0], graph)
        tags.setdefault(found[0], []).extend([image.name] if image.tag else [])
    listed = [{**entry, "RepoTags": tags[digest] or None} for digest, entry in entries.items()]
    data = msgspec.json.encode(listed)
    return data if listed and len(data) <= MOST_BYTES else None


def _is_whole(root: Digest, graph: Graph, present: Present) -> bool:
    reach = graph.reach(root)
    return bool(reach.manifests) and all(map(present, reach.blobs))


def _descriptor(image: BundleImage) -> dict[str, object]:
    return {
        "mediaType": image.root.media_type,
        "digest": str(image.root.digest),
        "size": image.root.size,
        "annotations": {CONTAINERD_NAME: image.name, REF_NAME: image.name},
    }


def _docker_entry(digest: Digest, graph: Graph) -> dict[str, object]:
    manifest = graph.manifest(digest)
    layers = [blob_path(each.digest) for each in manifest.layers]
    config = "" if manifest.config is None else blob_path(manifest.config.digest)
    return {"Config": config, "Layers": layers}
