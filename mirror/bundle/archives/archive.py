"""The face of all readers."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Protocol

from mirror.bundle.archives.found import FoundContent, FoundImage
from mirror.bundle.document import Document
from mirror.bundle.model import BundleManifest
from mirror.oci.digest import Digest


class Kind(StrEnum):
    """The kind of an archive."""

    BUNDLE = "bundle"
    LAYOUT = "layout"
    DISTRIBUTION = "distribution"


class Archive(Protocol):
    """An archive of images.

    `contents` is read to its end first. The rest is complete after that, because an archive may have its
    documents last: nothing is to be tagged before.
    """

    @property
    def kind(self) -> Kind:
        """The kind of the archive."""

    @property
    def document(self) -> Document | None:
        """The document of a bundle; None for foreign archives."""

    @property
    def images(self) -> tuple[FoundImage, ...]:
        """The names that the archive gives. Their manifests, or some of their blobs, may be missing."""

    @property
    def manifests(self) -> Mapping[Digest, BundleManifest]:
        """The manifests of the archive, each proven by its digest."""

    @property
    def links(self) -> Mapping[str, tuple[Digest, ...]]:
        """Manifests by repository, as the archive states them; none for foreign layouts."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the operator about what was passed over."""

    @property
    def exact(self) -> bool:
        """True for a bundle that is, byte for byte, what the writer wrote; False for one packed again."""

    def contents(self) -> Iterator[FoundContent]:
        """Yield manifests and blobs once each, in the archive's order; see `FoundContent.stream_to`.

        Raises BundleError where the archive is damaged or refused. All that was committed before is proven.
        """
