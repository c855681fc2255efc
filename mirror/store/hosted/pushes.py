"""Pushes as values: a manifest with what it names, and a blob that an upload has brought."""

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import TagEntry


class Quotas(Struct, frozen=True):
    """The room of a hosted registry and of each of its repositories, in bytes; 0 for no limit."""

    registry: int = 0
    repository: int = 0


NO_QUOTAS = Quotas()


class PushedManifest(Struct, frozen=True):
    """A verified manifest. `tag`: None for a push by digest.

    `blobs` and `manifests`: what it names and must be in the repository. `subject`: what it refers to, with
    its own `descriptor`, the JSON text for the list of referrers. `fixed_tags` must not move;
    `fixed_type`: a manifest that is here keeps the media type that it was pushed with.
    """

    repository: Repository
    digest: Digest
    data: bytes
    media_type: str
    tags: tuple[Tag, ...] = ()
    blobs: tuple[Digest, ...] = ()
    manifests: tuple[Digest, ...] = ()
    subject: Digest | None = None
    descriptor: str = ""
    fixed_tags: tuple[Tag, ...] = ()
    quotas: Quotas = NO_QUOTAS
    fixed_type: bool = False


class PushedTag(Struct, frozen=True):
    """The result for a tag: its entry before the push, None for a new tag."""

    tag: Tag
    before: TagEntry | None
