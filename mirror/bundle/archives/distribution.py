"""Reader of the storage folder of distribution (`registry:2`, `registry:3`), of a proxy or not.

    docker/registry/v2/blobs/sha256/<2 digits>/<digest>/data
    docker/registry/v2/repositories/<name>/_layers/sha256/<digest>/link
    docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/<digest>/link
    docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link

A link is a file with a digest in it. Only what a repository links is read: the rest was deleted, and waits
for distribution's own garbage collection. Distribution may leave empty links and short blobs after a crash:
each is passed over, with a note, or refused by its digest.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from mirror.bundle.archives.archive import Kind
from mirror.bundle.archives.found import FoundContent, FoundImage, Kept, manifest_in
from mirror.bundle.archives.limits import Limits
from mirror.bundle.errors import BundleError, EntryRefused
from mirror.bundle.model import BundleManifest, ContentDescriptor
from mirror.bundle.plan import Slice
from mirror.bundle.pump import ByteSource, Pump, read_full
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import COMPONENT, TAG
from mirror.util.durable import open_file

STORAGE = Path("docker/registry/v2")

# Deepest repository: 255 characters have room for 128 components; no registry has names of more than 20.
DEEPEST = 20

# "sha256:<64 hex digits>", or sha512 with 128.
LONGEST_LINK = 256

# Most notes: one for each thing that is wrong, until the operator has seen enough.
MOST_NOTES = 100


def storage_root(path: Path) -> Path | None:
    """Return the folder v2 in or at `path`, None if there is none.

    The folder that is mounted in the container, and those below it, are found.
    """
    for each in (path, path / "v2", path / "registry/v2", path / STORAGE):
        if (each / "repositories").is_dir() and (each / "blobs").is_dir():
            return each
    return None


class DistributionArchive:
    """The storage folder of distribution; see `Archive`.

    Names have no host: the operator knows the upstream.
    """

    kind = Kind.DISTRIBUTION
    document = None
    exact = False

    def __init__(self, root: Path, pump: Pump, limits: Limits) -> None:
        self._root = root
        self._pump = pump
        self._limits = limits
        self._kept = Kept(limits.manifests)
        self._notes: list[str] = []
        self._tags: dict[str, Digest] = {}
        self._revisions: dict[str, tuple[Digest, ...]] = {}

    @property
    def images(self) -> tuple[FoundImage, ...]:
        """The tags whose manifest is here."""
        found = []
        for name, digest in sorted(self._tags.items()):
            manifest = self._kept.manifests.get(digest)
            if manifest is not None:
                found.append(
                    FoundImage(name, ContentDescriptor(manifest.media_type, digest, len(manifest.data)))
                )
        return tuple(found)

    @property
    def manifests(self) -> Mapping[Digest, BundleManifest]:
        """The manifests that a repository has as a revision."""
        return self._kept.manifests

    @property
    def links(self) -> Mapping[str, tuple[Digest, ...]]:
        """The revisions of each repository, those of which the manifest is here."""
        here = self._kept.manifests
        return {name: tuple(x for x in each if x in here) for name, each in self._revisions.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """Links that are empty, and blobs that are not there."""
        return tuple(self._notes)

    def contents(self) -> Iterator[FoundContent]:
        """Yield manifests first, then blobs, by digest."""
        layers: set[Digest] = set()
        for name, folder in self._repositories(self._root / "repositories", "", 0):
            layers.update(self._linked(folder / "_layers"))
            self._revisions[name] = tuple(sorted(self._linked(folder / "_manifests" / "revisions")))
            self._read_tags(name, folder / "_manifests" / "tags")
        revisions = {digest for each in self._revisions.values() for digest in each}
        for digest in sorted(revisions):
            yield from self._content(digest, is_manifest=True)
        for digest in sorted(layers - revisions):
            yield from self._content(digest, is_manifest=False)
        for name, digest in self._tags.items():
            if digest not in self._kept.manifests:
                self._note(f"{name}: its manifest {digest} is not here, or is none")

    def _content(self, digest: Digest, is_manifest: bool) -> Iterator[FoundContent]:
        path = self._root / "blobs" / digest.algorithm / digest.encoded[:2] / digest.encoded / "data"
        try:
            file = open_file(path)
        except OSError as error:
            self._note(f"{digest}: the blob cannot be opened: {error.strerror}")
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            found = FoundContent(
                cast("ByteSource", file), Slice(digest, size, 0, size), str(path), self._pump
            )
            found.file = file, path
            if is_manifest and size <= self._limits.small:
                found.manifest = self._manifest(digest, file, size)
                file.seek(0)
            yield found

    def _manifest(self, digest: Digest, file: BinaryIO, size: int) -> BundleManifest | None:
        buffer = bytearray(size)
        read_full(cast("ByteSource", file), memoryview(buffer))
        found = manifest_in(bytes(buffer))
        if found is None or Digest.of(found.data, digest.algorithm) != digest:
            return None
        self._kept.add(digest, found, str(digest))
        return found

    def _repositories(self, folder: Path, name: str, depth: int) -> Iterator[tuple[str, Path]]:
        """Yield all repositories below a folder. One repository may be inside another."""
        if depth > DEEPEST:
            raise EntryRefused(f"a repository with more than {DEEPEST} components", name)
        for each in self._folders(folder):
            if each.name.startswith("_"):
                continue
            if COMPONENT.fullmatch(each.name) is None:
                self._note(f"{each}: not the name of a repository")
                continue
            inner = f"{name}/{each.name}" if name else each.name
            if (each / "_manifests").is_dir():
                yield inner, each
            yield from self._repositories(each, inner, depth + 1)

    def _linked(self, folder: Path) -> Iterator[Digest]:
        """Yield the digests that links in a folder name; a link must name the folder that it is in."""
        for algorithm in self._folders(folder):
            for each in self._folders(algorithm):
                digest = self._link(each / "link")
                if digest is not None and (digest.algorithm, digest.encoded) == (algorithm.name, each.name):
                    yield digest
                elif digest is not None:
                    self._note(f"{each}: the link names {digest}")

    def _read_tags(self, name: str, folder: Path) -> None:
        for each in self._folders(folder):
            digest = self._link(each / "current" / "link") if TAG.fullmatch(each.name) else None
            if digest is not None:
                self._tags[f"{name}:{each.name}"] = digest

    def _link(self, path: Path) -> Digest | None:
        """Return the digest in a link; None, with a note, if there is none."""
        try:
            with open_file(path) as file:
                return Digest.parse(file.read(LONGEST_LINK).decode("ascii", "replace").strip())
        except FileNotFoundError:
            return None  # deleted: distribution removes the link, and leaves the folder
        except (OSError, RegistryError):
            self._note(f"{path}: the link is empty or damaged")
            return None

    def _folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, none if there is no such folder. Links are not followed."""
        try:
            with os.scandir(folder) as found:
                return sorted(Path(each.path) for each in found if each.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BundleError(f"the folder cannot be read: {error.strerror}", str(folder)) from None

    def _note(self, text: str) -> None:
        if len(self._notes) < MOST_NOTES:
            self._notes.append(text)
