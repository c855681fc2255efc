"""Files of a bundle: written beside their names, resumed by offset, renamed when they are complete.

    lab.tar            complete, or of an earlier export
    lab.tar.part       begun; the same command goes on where it ends
    lab.2-of-9.tar     part 2, with `--split`

The time at which a tag was confirmed is part of a bundle, and a running mirror confirms tags again. So an
export that goes on with a bundle, or makes one part of it again, takes the times of the files that are there.
"""

import fcntl
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from mirror.bundle import document
from mirror.bundle.errors import BundleError, Damaged
from mirror.bundle.model import BundleContents, BundleImage
from mirror.bundle.parts import split
from mirror.bundle.plan import Plan, make_plan
from mirror.bundle.tar_format import END
from mirror.bundle.writer import OpenBlob, Progress, resume_offset, silent, write
from mirror.store.lock import is_name_of
from mirror.util.durable import sync_folder

# Files of a bundle that come before its blobs; its document is among them.
HEAD_MEMBERS = 4


class ExportError(Exception):
    """A bundle cannot be written; the message says why, and what to do."""


class Target(Struct, frozen=True):
    """One file to write: `size` bytes by `plan`. `number` of `count` parts, from 1."""

    path: Path
    plan: Plan
    number: int = 1
    count: int = 1

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self.plan.size

    @property
    def unfinished(self) -> Path:
        """The file's name while it is written."""
        return self.path.with_name(f"{self.path.name}.part")


def targets(path: Path, contents: BundleContents, limit: int = 0) -> list[Target]:
    """Return the files of a bundle, each smaller than `limit` bytes if that is not 0. Raises BundleError."""
    if not limit:
        return [Target(path, make_plan(contents))]
    plans = split(contents, limit)
    return [
        Target(part_path(path, number, len(plans)), plan, number, len(plans))
        for number, plan in enumerate(plans, 1)
    ]


def part_path(path: Path, number: int, count: int) -> Path:
    """Return the name of a part: `lab.2-of-9.tar`."""
    stem, suffix = (path.name[:-4], ".tar") if path.name.endswith(".tar") else (path.name, "")
    return path.with_name(f"{stem}.{number}-of-{count}{suffix}")


def with_known_times(contents: BundleContents, path: Path) -> BundleContents:
    """Return the contents with the times of confirmation that files of this export have already."""
    known: Mapping[BundleImage, BundleImage] = {
        replace(each, confirmed=0): each for file in _siblings(path) for each in images_of(file)
    }
    images = tuple(known.get(replace(each, confirmed=0), each) for each in contents.images)
    return replace(contents, images=images)


def _siblings(path: Path) -> Iterator[Path]:
    """Yield the files that an export to `path` may have written, the complete ones last."""
    stem = path.name.removesuffix(".tar")
    names = sorted(path.parent.glob(f"{_escaped(stem)}.*-of-*"), key=lambda each: each.suffix != ".part")
    yield from (path.with_name(f"{path.name}.part"), path, *names)


def _escaped(name: str) -> str:
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)


def images_of(path: Path) -> list[BundleImage]:
    """Return the images of a bundle's file, even of one that was begun; none if it is none."""
    found = document_in(path)
    return [] if found is None else [each.image() for each in found.images]


def document_in(path: Path) -> document.Document | None:
    """Return the document of a bundle's file, even of one that was begun; None if it is none."""
    with suppress(OSError, tarfile.TarError, BundleError), tarfile.open(path, "r:") as tar:
        for _ in range(HEAD_MEMBERS):
            member = tar.next()
            if member is None:
                return None
            if member.name == document.NAME and member.isreg() and member.size <= document.MOST_BYTES:
                file = tar.extractfile(member)
                return None if file is None else document.decode(file.read())
    return None


def is_complete(target: Target) -> bool:
    """Return whether the file is there already, with the same documents and the same size."""
    try:
        with target.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != target.size:
                return False
            return resume_offset(target.plan, file) == target.size - len(END)
    except (OSError, BundleError):
        return False


def write_target(target: Target, open_blob: OpenBlob, progress: Progress = silent) -> int:
    """Write a file, from where an interrupted export stopped; return the offset that it began at.

    `progress` is called with the offset first. Raises ExportError, Damaged, OSError.
    """
    with _claimed(target.unfinished) as file:
        offset = _offset(target, file)
        os.ftruncate(file.fileno(), offset)
        file.seek(offset)
        progress(offset)
        try:
            write(target.plan, open_blob, file, offset, progress)
        except Damaged:
            os.ftruncate(file.fileno(), 0)  # the content changes with the blob: nothing to go on with
            raise
        os.fsync(file.fileno())
        os.rename(target.unfinished, target.path)
    sync_folder(target.path.parent)
    return offset


def _offset(target: Target, file: BinaryIO) -> int:
    """Return where to go on; 0 for the file of another bundle, which is written over."""
    try:
        return resume_offset(target.plan, file)
    except BundleError:
        return 0


@contextmanager
def _claimed(path: Path) -> Iterator[BinaryIO]:
    """Open a file to go on with, created if it is new, for this process alone. Raises ExportError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"another export writes {path}: wait for it, or end it") from None
        except OSError:  # a file system without locks
            pass
        if not is_name_of(path, descriptor):
            raise ExportError(f"another export has just written {path}: repeat the command")
        yield file


def total_size(found: Sequence[Target]) -> int:
    """Return the bytes of all files."""
    return sum(each.size for each in found)
