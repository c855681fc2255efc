"""Files of a bundle: written beside their names, resumed by offset, renamed when they are complete.

    lab.tar            complete, or of an earlier export
    lab.tar.part       begun; the same command goes on where it ends
    lab.2-of-9.tar     part 2, with `--split`

The time at which a tag was confirmed is part of a bundle, and a running mirror confirms tags again. So an
export that goes on with a bundle, or makes one part of it again, takes the times of the files that are there.
"""

import fcntl
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from mirror.bundle import document
from mirror.bundle.archives.since import digests_in
from mirror.bundle.errors import BundleError, Damaged
from mirror.bundle.model import BundleContents, BundleImage
from mirror.bundle.parts import split
from mirror.bundle.plan import BundlePlan, make_plan
from mirror.bundle.tar_format import END
from mirror.bundle.writer import OpenBlob, Progress, resume_offset, silent, write
from mirror.oci.digest import Digest
from mirror.util.durable import WriteBack, sync_folder

# Files of a bundle that come before its blobs; its document is among them.
HEAD_MEMBERS = 4


class ExportError(Exception):
    """A bundle cannot be written; the message says why, and what to do."""


class OutputFile(Struct, frozen=True):
    """One file to write by `plan`. `number` of `count` parts, from 1."""

    name: str
    plan: BundlePlan
    number: int = 1
    count: int = 1

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self.plan.size

    @property
    def unfinished(self) -> str:
        """The file's name while it is written."""
        return f"{self.name}.part"


class OutputFolder:
    """The folder that files of a bundle are written to, with the rights of this process.

    `mode`: that of new files, before the umask.
    """

    def __init__(self, path: Path, mode: int = 0o666) -> None:
        self.path = path
        self._mode = mode

    def names(self) -> list[str]:
        """Return the names in the folder."""
        return os.listdir(self.path)

    def open(self, name: str, flags: int) -> int:
        """Open a file, by the flags of os.open; return its descriptor."""
        return os.open(self.path / name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, self._mode)

    def rename(self, name: str, target: str) -> None:
        """Rename a file, durably."""
        os.rename(self.path / name, self.path / target)
        sync_folder(self.path)


def targets(name: str, contents: BundleContents, limit: int = 0) -> list[OutputFile]:
    """Return the files of a bundle, each smaller than `limit` bytes if that is not 0. Raises BundleError."""
    if not limit:
        return [OutputFile(name, make_plan(contents))]
    plans = split(contents, limit)
    return [
        OutputFile(part_name(name, number, len(plans)), plan, number, len(plans))
        for number, plan in enumerate(plans, 1)
    ]


def part_name(name: str, number: int, count: int) -> str:
    """Return the name of a part: `lab.2-of-9.tar`."""
    stem, suffix = (name[:-4], ".tar") if name.endswith(".tar") else (name, "")
    return f"{stem}.{number}-of-{count}{suffix}"


def with_known_times(contents: BundleContents, folder: OutputFolder, name: str) -> BundleContents:
    """Return the contents with the times of confirmation that files of this export have already."""
    known: Mapping[BundleImage, BundleImage] = {
        replace(each, confirmed=0): each
        for file in _siblings(folder, name)
        for each in images_of(folder, file)
    }
    images = tuple(known.get(replace(each, confirmed=0), each) for each in contents.images)
    return replace(contents, images=images)


def _siblings(folder: OutputFolder, name: str) -> list[str]:
    """Return the files that an export to `name` may have written, the complete ones last."""
    part = re.compile(re.escape(name.removesuffix(".tar")) + r"\.[0-9]+-of-[0-9]+(\.tar)?(\.part)?")
    found = [each for each in folder.names() if each in (name, f"{name}.part") or part.fullmatch(each)]
    return sorted(found, key=lambda each: (not each.endswith(".part"), each))


def images_of(folder: OutputFolder, name: str) -> list[BundleImage]:
    """Return the images of a bundle's file, even of one that was begun; none if it is none."""
    with suppress(OSError, BundleError), _open_file(folder, name) as file:
        found = document_in(file)
        return [] if found is None else [each.image() for each in found.images]
    return []


def document_in(file: BinaryIO) -> document.Document | None:
    """Return the document of a bundle's file, even of one that was begun; None if it is none."""
    with suppress(OSError, tarfile.TarError, BundleError), tarfile.open(fileobj=file, mode="r:") as tar:
        for _ in range(HEAD_MEMBERS):
            member = tar.next()
            if member is None:
                return None
            if member.name == document.NAME and member.isreg() and member.size <= document.MOST_BYTES:
                found = tar.extractfile(member)
                return None if found is None else document.decode(found.read())
    return None


def digests_in_archive(file: BinaryIO, path: Path) -> list[Digest]:
    """Return the digests that an archive carries: a bundle's document tells, another archive is read.

    Raises BundleError naming the archive.
    """
    try:
        found = document_in(file)
        if found is None:
            return list(digests_in([path]))
        return [*found.carried(), *(document.checked_digest(each.digest) for each in found.manifests)]
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def is_complete(folder: OutputFolder, target: OutputFile) -> bool:
    """Return whether the file is there already, with the same documents and the same size."""
    with suppress(OSError, BundleError), _open_file(folder, target.name) as file:
        if os.fstat(file.fileno()).st_size == target.size:
            return resume_offset(target.plan, file) == target.size - len(END)
    return False


def write_target(
    folder: OutputFolder, target: OutputFile, open_blob: OpenBlob, progress: Progress = silent
) -> None:
    """Write a file, from where an interrupted export stopped.

    `progress` is called with the offset first, then with numbers of bytes. Raises ExportError, Damaged and
    OSError.
    """
    with _lock_file(folder, target.unfinished) as file:
        offset = _offset(target, file)
        os.ftruncate(file.fileno(), offset)
        file.seek(offset)
        progress(offset)
        write_back = WriteBack(file.fileno(), offset)

        def note(count: int) -> None:
            write_back.note(count)
            progress(count)

        try:
            write(target.plan, open_blob, file, offset, note)
        except Damaged:
            os.ftruncate(file.fileno(), 0)  # the content changes with the blob: nothing to go on with
            raise
        os.fsync(file.fileno())
        folder.rename(target.unfinished, target.name)


def _offset(target: OutputFile, file: BinaryIO) -> int:
    """Return where to go on; 0 for the file of another bundle, which is written over."""
    try:
        return resume_offset(target.plan, file)
    except BundleError:
        return 0


def _open_file(folder: OutputFolder, name: str) -> BinaryIO:
    return open(folder.open(name, os.O_RDONLY), "rb")


@contextmanager
def _lock_file(folder: OutputFolder, name: str) -> Iterator[BinaryIO]:
    """Open a file to go on with, created if it is new, for this process alone. Raises ExportError."""
    descriptor = folder.open(name, os.O_RDWR | os.O_CREAT)
    with open(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"another export writes {name}: wait for it, or end it") from None
        except OSError:  # a file system without locks
            pass
        if os.fstat(descriptor).st_nlink == 0 or name not in folder.names():
            raise ExportError(f"another export has just written {name}: repeat the command")
        yield file


def total_size(found: Sequence[OutputFile]) -> int:
    """Return the bytes of all files."""
    return sum(each.size for each in found)
