"""Small disks for one test, mounted and unmounted by root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.programs import program

MIB = 1024 * 1024


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def unmount(place: Path) -> None:
    """Unmount at once, even while the file system is in use."""
    subprocess.run(["umount", "-l", "-R", str(place)], check=True)


@contextmanager
def mounted(place: Path, *arguments: str | Path) -> Iterator[Path]:
    """Mount at `place`; `arguments` of mount(8) say what, and how."""
    place.mkdir(exist_ok=True)
    mount(*arguments, place)
    try:
        yield place
    finally:
        unmount(place)


@contextmanager
def tmpfs(place: Path, size: int) -> Iterator[Path]:
    """Mount a tmpfs of `size` bytes."""
    with mounted(place, "-t", "tmpfs", "-o", f"size={size}", "none") as disk:
        yield disk


@contextmanager
def formatted(place: Path, kind: str, size: int) -> Iterator[Path]:
    """Mount a file system of this kind, in a file of `size` bytes beside `place`."""
    image = place.with_name(f"{place.name}.image")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([program(f"mkfs.{kind}"), "-q", str(image)], check=True, capture_output=True)
    with mounted(place, "-o", "loop", image) as disk:
        yield disk


def fill_up(path: Path, left: int = 0) -> None:
    """Fill the disk with a file, but for `left` bytes."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - left))
