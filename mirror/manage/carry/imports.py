"""An import: archives are read one after another, then the index says what is here now.

Blobs are kept as they come, so that an import that was killed goes on with what it lacks. Manifests and links
follow when an archive was read to its end, and a tag when all that its image needs is here. So parts of a
bundle come in any order, by one import or by several.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from msgspec import Struct

from mirror.bundle.archives.archive import Archive
from mirror.bundle.archives.found import Discard, FoundContent, Sink
from mirror.bundle.archives.layout_reader import slice_of
from mirror.bundle.document import Document, Piece, checked_digest
from mirror.bundle.errors import BundleError, Damaged
from mirror.bundle.model import ContentDescriptor
from mirror.bundle.pump import ByteSource
from mirror.manage.carry.intake import Intake
from mirror.manage.carry.names import ImageName, Namer
from mirror.manage.carry.pieces import PieceOfBlob, is_here
from mirror.manage.carry.pushing import PushRegistrar, prepare
from mirror.manage.carry.registrar import Manifests, Registrar, own_blobs
from mirror.manage.carry.room import ImportRoom, room_for
from mirror.manage.carry.sinks import BlobSink
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.util.callbacks import ignore

# Most links that an archive may lead to: each takes 0.4 KiB of the folder, beside the quota. 26,000 names of
# 490 manifests fit in 80 MiB, and would take terabytes.
MOST_LINKS = 5_000_000

# "present": nothing of it was new. "older": the tag here is newer, and stays. "lacking": a part is not here.
ImportState = Literal["imported", "present", "older", "lacking"]


class NoRoomForImport(Exception):
    """The blobs of a bundle cannot be kept beside what is pinned."""

    def __init__(self, room: ImportRoom) -> None:
        super().__init__(f"{room.new} new bytes do not fit beside {room.pinned} pinned ones")
        self.room = room


class ImportOptions(Struct, frozen=True):
    """The operator's wishes. `accounts`, `forced`: as of a `Registrar`. `pin`: pin the images.

    `ruled`: access rules deny something, so that not all that is here is for every client.
    `hosted`: registries whose images are kept as if a client had pushed them. `on_room` is called with the
    room that a bundle takes, before a byte of it is kept.
    """

    namer: Namer
    accounts: Collection[str]
    now: float
    forced: bool = False
    pin: bool = False
    ruled: bool = False
    hosted: Collection[str] = ()
    on_room: Callable[[ImportRoom], object] = ignore

    @property
    def guarded(self) -> bool:
        """Return whether a digest alone must not open what is here."""
        return bool(self.accounts) or self.ruled


class ImportedImage(Struct, frozen=True):
    """The result of an image. `lacking`: sizes of the blobs that are not here.

    `parts`: numbers of the parts of the bundle that have some of them.
    """

    name: str
    root: Digest
    state: ImportState
    size: int = 0
    lacking: Mapping[Digest, int] = {}
    parts: tuple[int, ...] = ()


class ArchiveRead(Struct, frozen=True):
    """An archive that was read to its end."""

    origin: str
    manifests: Manifests
    images: tuple[tuple[ImageName, str, ContentDescriptor, int], ...]
    repositories: Mapping[Repository, tuple[Digest, ...]]
    document: Document | None


class Import:
    """One import into a folder: `read` for each archive, then `finish`."""

    def __init__(self, folder: CacheDirectory, options: ImportOptions) -> None:
        self._folder = folder
        self._options = options
        if options.hosted:
            prepare(folder, options.hosted, options.namer.given)
        self._intake = Intake(folder)
        self._read: list[ArchiveRead] = []
        self._read_here: set[Digest] = set()
        self.damages: list[BundleError] = []

    @property
    def stored(self) -> Mapping[Digest, int]:
        """Sizes of the blobs that were new."""
        return self._intake.stored

    def read(self, archive: Archive, origin: str, on_bytes: Callable[[int], object] = ignore) -> None:
        """Take the blobs of an archive. `on_bytes` is called with the bytes of contents that were read.

        Damaged blobs are noted in `damages`. Raises BundleError where the archive cannot be read further,
        NoRoomForImport, NoRoom, StoreError and OSError; what was kept before stays.
        """
        steps: Mapping[Digest, int] | None = None
        try:
            for content in archive.contents():
                if steps is None and archive.document is not None:
                    self._check_room(archive.document)
                    steps = steps_of(archive.document)
                self._take(content, steps or {}, on_bytes)
        finally:
            self._intake.flush()
        self._read.append(self._archive_read(archive, origin))

    def finish(self) -> Iterator[ImportedImage]:
        """Write the index, and yield the result of each image. Raises PinTooLarge and StoreError."""
        self._intake.flush()
        for read in self._read:
            unproven = self._unproven(read)
            for repository, digests in read.repositories.items():
                self._registrar(read, repository).link(repository, read.manifests, digests, unproven)
        results = {}
        for read in self._read:
            for name, text, root, confirmed in read.images:
                results[text, root.digest] = self._finish_image(read, name, text, root, confirmed)
        # Copies in the memory of a running mirror are out of date: missing tags, older ones.
        self._folder.epoch.note_removal()
        yield from results.values()

    def _take(
        self, content: FoundContent, steps: Mapping[Digest, int], on_bytes: Callable[[int], object]
    ) -> None:
        if content.manifest is not None:
            self._intake.take_bytes(content.digest, content.manifest.data)
            on_bytes(content.size)
            return
        sink: Sink | None = self._sink(content, steps)
        if sink is None:
            if not (self._options.guarded and content.slice.whole):
                on_bytes(content.size)
                return
            sink = Discard()
            self._read_here.add(content.digest)
        try:
            content.stream_to(_Counted(sink, on_bytes))
        except Damaged as error:
            self._read_here.discard(content.digest)
            self.damages.append(error)

    def _sink(self, content: FoundContent, steps: Mapping[Digest, int]) -> BlobSink | None:
        found = content.slice
        if found.whole:
            return self._intake.sink(found.digest, found.size)
        step = steps.get(found.digest, found.length)
        return self._intake.piece_sink(
            PieceOfBlob(found.digest, found.size, found.offset, found.length, step)
        )

    def _unproven(self, read: ArchiveRead) -> Collection[Digest]:
        """Return the blobs that an archive names, and whose bytes nobody has shown.

        Some of what is here may have come with an account, or a rule may deny it, and a digest alone must not
        open it: so bytes are read again that are here, and what a delta leaves out is only named. Without
        accounts and rules all that is here is for every client, and the sender's word is enough.
        """
        unproven = unproven_in(read.document)
        if not self._options.guarded:
            return unproven
        graph = read.manifests.graph
        named = {each.digest for one in read.manifests.data for each in own_blobs(graph.manifest(one))}
        return unproven | (named - self.stored.keys() - self._read_here)

    def _check_room(self, document: Document) -> None:
        room = room_for(self._folder, document.carried(), pin=self._options.pin)
        if not room.fits:
            raise NoRoomForImport(room)
        self._options.on_room(room)

    def _archive_read(self, archive: Archive, origin: str) -> ArchiveRead:
        namer, manifests = self._options.namer, Manifests(archive.manifests, self.stored)
        document = archive.document
        if document is not None:
            found = [each.image() for each in document.images]
            images = [(namer.of_bundle(each.name), each.name, each.root, each.confirmed) for each in found]
        else:
            named = [each for each in archive.images if each.name or len(archive.images) == 1]
            if not named and not archive.links:
                raise BundleError(
                    f"none of its {len(archive.images)} images has a name, and several need one each"
                )
            images = [(*_name_of(namer, each.name, each.root), each.root, 0) for each in named]
        repositories: dict[Repository, set[Digest]] = {}
        for name, digests in archive.links.items():
            repository = namer.repository(name) if document else namer.of_archive(f"{name}:x").repository
            repositories.setdefault(repository, set()).update(each for each in digests)
        steps = 0
        for image, _, root, _ in images:
            below = manifests.below(root.digest)
            repositories.setdefault(image.repository, set()).update(below)
            steps += len(below)
            require_few_links(steps)
        require_few_links(sum(sum(map(manifests.count_links, each)) for each in repositories.values()))
        return ArchiveRead(
            origin,
            manifests,
            tuple(images),
            {
                each: tuple(sorted(digests & archive.manifests.keys()))
                for each, digests in repositories.items()
            },
            document,
        )

    def _has_piece(self, piece: Piece) -> bool:
        """Return whether a piece of a blob that is not here as a whole came with another part."""
        if piece.length < 0:
            return False
        found = slice_of(piece)
        return is_here(self._folder, found.digest, found.offset, found.offset + found.length)

    def _registrar(self, read: ArchiveRead, repository: Repository) -> Registrar | PushRegistrar:
        options = self._options
        if repository.upstream in options.hosted:
            return PushRegistrar(self._folder, read.origin, options.forced, options.now)
        return Registrar(self._folder, read.origin, options.accounts, options.forced, options.now)

    def _finish_image(
        self, read: ArchiveRead, name: ImageName, text: str, root: ContentDescriptor, confirmed: int
    ) -> ImportedImage:
        needed = read.manifests.blobs(root.digest)
        lacking = {digest: size for digest, size in needed.items() if not self._intake.has(digest)}
        if root.digest not in read.manifests.data:
            lacking[root.digest] = root.size
        own = read.manifests.graph.reach(root.digest).manifests
        own_lacking = {
            each.digest
            for digest in own
            for each in own_blobs(read.manifests.graph.manifest(digest))
            if each.digest in lacking
        }
        state: ImportState = "imported"
        if lacking:
            state = "lacking"
        elif not any(digest in self.stored for digest in (root.digest, *own, *needed)):
            state = "present"
        registrar = self._registrar(read, name.repository)
        if own and not own_lacking:
            if name.tag and not registrar.put_tag(name, root, confirmed):
                state = "lacking" if lacking else "older"
            elif self._options.pin:
                registrar.pin(name, root.digest)
        parts = () if read.document is None else parts_with(read.document, lacking, self._has_piece)
        size = sum(needed.values()) + sum(len(read.manifests.data[each].data) for each in own)
        return ImportedImage(text, root.digest, state, size, lacking, parts)


class _Counted:
    """A sink whose bytes are counted."""

    def __init__(self, sink: Sink, on_bytes: Callable[[int], object]) -> None:
        self._sink = sink
        self._on_bytes = on_bytes
        self.commit = sink.commit
        self.abort = sink.abort

    def write(self, data: memoryview, /) -> None:
        self._sink.write(data)
        self._on_bytes(len(data))

    def take(self, file: BinaryIO, path: Path | None, /) -> ByteSource | None:
        taken = self._sink.take(file, path)
        return None if taken is None else _CountedSource(taken, self._on_bytes)


class _CountedSource:
    """A file that a sink has taken, whose bytes are counted as they are proven."""

    def __init__(self, source: ByteSource, on_bytes: Callable[[int], object]) -> None:
        self._source = source
        self._on_bytes = on_bytes

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._source.readinto(buffer) or 0
        self._on_bytes(count)
        return count


def _name_of(namer: Namer, name: str, root: ContentDescriptor) -> tuple[ImageName, str]:
    found = namer.of_archive(name)
    text = f"{found.repository}:{found.tag}" if found.tag else f"{found.repository}@{root.digest}"
    return found, text


def require_few_links(count: int) -> None:
    """Raise BundleError if an archive leads to more than MOST_LINKS links."""
    if count > MOST_LINKS:
        raise BundleError(
            f"its names lead to more than {MOST_LINKS} links of repositories to contents; "
            "if it is to be trusted, export it as several bundles of fewer repositories"
        )


def steps_of(document: Document) -> dict[Digest, int]:
    """Return the distance of the pieces of each blob that is split over the parts of a bundle."""
    steps: dict[Digest, int] = {}
    for piece in (each for part in document.parts for each in part.blobs if each.offset):
        digest = checked_digest(piece.digest)
        steps[digest] = min(piece.offset, steps.get(digest, piece.offset))
    return steps


def unproven_in(document: Document | None) -> frozenset[Digest]:
    """Return the blobs that the sender of a bundle lacked, and could not vouch for."""
    return frozenset() if document is None else frozenset(map(checked_digest, document.lacking))


def parts_with(
    document: Document, lacking: Collection[Digest], has_piece: Callable[[Piece], bool]
) -> tuple[int, ...]:
    """Return the numbers of the parts, from 1, that have some of the blobs; none for a bundle in one file."""
    wanted = set(map(str, lacking))
    if len(document.parts) == 1:
        return ()
    return tuple(
        number
        for number, part in enumerate(document.parts, 1)
        if any(piece.digest in wanted and not has_piece(piece) for piece in part.blobs)
    )
