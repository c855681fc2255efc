"""Contents of an image: which manifests and blobs a pull of some platforms needs; pure."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import on_platform
from mirror.oci.manifest import Descriptor, Manifest

# The annotation with which BuildKit attaches an attestation to an image of the same index.
ATTACHED_TO = "vnd.docker.reference.digest"


class Chosen(Struct, frozen=True):
    """The entries of an index that a pull needs, and the wanted platforms that the index lacks."""

    entries: tuple[Descriptor, ...]
    absent: tuple[str, ...] = ()


def blobs_of(manifest: Manifest | None) -> list[Digest]:
    """Return the blobs that a client will ask for after this manifest, in that order."""
    return [each.digest for each in blob_descriptors(manifest)]


def blob_descriptors(manifest: Manifest | None) -> list[Descriptor]:
    """Return the descriptors of config and layers, each digest once.

    Nothing for an index. Blobs with `urls` are left out: clients get foreign layers elsewhere.
    """
    if manifest is None or manifest.is_index or manifest.manifests:
        return []
    return [child for child in manifest.children() if not child.urls]


def choose(entries: Sequence[Descriptor], platforms: tuple[str, ...], *, attached: bool) -> Chosen:
    """Return the entries of an index for `platforms`; all of them, if there are none.

    `linux/arm64` includes `linux/arm64/v8`. An entry without a platform is always needed; one that is
    attached to another, as BuildKit's attestations are, with that one if `attached`.
    """
    if not platforms:
        return Chosen(_once(entries))
    images = [each for each in entries if attached_to(each) is None]
    wanted = [each for each in images if each.platform is None or on_platform(each.platform, platforms)]
    names = {str(each.digest) for each in wanted}
    with_them = [each for each in entries if attached and attached_to(each) in names]
    known = [each.platform for each in wanted if each.platform is not None]
    # An index without platforms is none of an image: nothing can be said about it.
    stated = any(each.platform is not None for each in images)
    absent = [each for each in platforms if stated and not any(on_platform(name, (each,)) for name in known)]
    return Chosen(_once([*wanted, *with_them]), tuple(absent))


def attached_to(entry: Descriptor) -> str | None:
    """Return the digest of the image that an entry of an index is attached to."""
    annotations = entry.raw.get("annotations")
    found = annotations.get(ATTACHED_TO) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else None


def platforms_in(entries: Iterable[Descriptor]) -> list[str]:
    """Return the platforms that an index states, in its order."""
    return list(dict.fromkeys(each.platform for each in entries if each.platform and not attached_to(each)))


def _once(entries: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    return tuple({each.digest: each for each in entries}.values())
