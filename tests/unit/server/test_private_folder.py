"""The private folder of a mirror's processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

import pytest

from mirror.server.private_folder import LOCK, PREFIX, private_folder, sweep

# Holds a folder, as a parent does whose child goes on for as long as its input is open.
SCRIPT = """
import os, sys
from mirror.server.private_folder import private_folder

with private_folder(sys.argv[1]) as folder:
    if os.fork():
        print(folder, flush=True)
        os.read(0, 1)
    else:
        os.close(1)
        os.read(int(sys.argv[2]), 1)
        os._exit(0)
"""


@contextmanager
def mirror(parent: Path) -> Iterator[tuple["subprocess.Popen[str]", Path, int]]:
    """A program that holds a folder, with a worker that ends once the descriptor is closed."""
    read, write = os.pipe()
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(parent), str(read)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[read],
        text=True,
    )
    os.close(read)
    assert program.stdin is not None
    assert program.stdout is not None
    with program, program.stdin, program.stdout:
        yield program, Path(program.stdout.readline().strip()), write


def test_folder_is_removed_behind_the_block(tmp_path: Path) -> None:
    with private_folder(str(tmp_path)) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        with private_folder(None, str(folder)) as same:  # a handover
            assert same == folder
            assert sweep(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_killed_mirror_is_removed_at_the_next_start(tmp_path: Path) -> None:
    """Not before its last worker is gone."""
    with mirror(tmp_path) as (program, folder, worker):
        assert sweep(tmp_path) == 0
        program.kill()
        program.wait()
        assert sweep(tmp_path) == 0
        assert folder.is_dir()
        os.close(worker)
        with (folder / LOCK).open() as lock:
            flock(lock, LOCK_EX)  # the worker is gone
        with private_folder(str(tmp_path)) as own:
            assert list(tmp_path.iterdir()) == [own]


@pytest.mark.parametrize("kind", ["symlink", "no lock", "lock elsewhere", "lock is a pipe", "a file"])
def test_folder_that_is_none_of_ours_stays(tmp_path: Path, kind: str) -> None:
    parent, elsewhere = tmp_path / "tmp", tmp_path / "elsewhere"
    parent.mkdir()
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    folder = parent / f"{PREFIX}x"
    if kind == "symlink":
        folder.symlink_to(elsewhere)
    elif kind == "a file":
        folder.touch()
    else:
        folder.mkdir()
    if kind == "lock elsewhere":
        (folder / LOCK).symlink_to(elsewhere / LOCK)
    elif kind == "lock is a pipe":
        os.mkfifo(folder / LOCK)
    assert sweep(parent) == 0
    assert folder.exists()
    assert (elsewhere / LOCK).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what another user owns")
def test_folder_of_another_user_stays(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}x"
    folder.mkdir()
    (folder / LOCK).touch()
    os.chown(folder, 4711, 4711)
    assert sweep(tmp_path) == 0
    os.chown(folder, os.geteuid(), os.getegid())
    assert sweep(tmp_path) == 1


def test_folder_is_swept_of_what_a_dead_mirror_linked(tmp_path: Path) -> None:
    """Links inside are removed, and not what they point to."""
    folder, kept = tmp_path / f"{PREFIX}x", tmp_path / "kept"
    folder.mkdir()
    kept.mkdir()
    (folder / LOCK).touch()
    (folder / "link").symlink_to(kept)
    with (folder / LOCK).open() as lock:
        flock(lock, LOCK_EX | LOCK_NB)
        assert sweep(tmp_path) == 0
    assert sweep(tmp_path) == 1
    assert kept.is_dir()


def test_sweep_of_no_folder(tmp_path: Path) -> None:
    assert sweep(tmp_path / "missing") == 0
