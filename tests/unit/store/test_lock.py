"""File locks: one holder among all processes, freed by any death."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.store.lock import exclusive_lock, lock_if_unread, lock_shared, try_lock, try_lock_folder

HOLD = """
import sys
from pathlib import Path
from mirror.store.lock import try_lock
assert try_lock(Path(sys.argv[1])) is not None
print("locked", flush=True)
sys.stdin.read()
"""

READ = """
import sys
from mirror.store.lock import lock_shared
file = open(sys.argv[1], "rb")
lock_shared(file.fileno())
print("reading", flush=True)
sys.stdin.read()
"""


@contextmanager
def killed_at_last(program: str, path: Path, says: str) -> Iterator[None]:
    """Run another process that has used the file, until it dies by kill -9."""
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == f"{says}\n"
        yield
        other.send_signal(signal.SIGKILL)
        other.wait()


def is_unread(path: Path) -> bool | None:
    with lock_if_unread(path) as idle:
        return idle


def test_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    """The second gets None, and the lock is free once the first releases it."""
    path = tmp_path / "x.map"
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    os.close(first)
    second = try_lock(path)
    assert second is not None
    os.close(second)


def test_lock_is_freed_when_its_holder_is_killed(tmp_path: Path) -> None:
    """Another process has the lock; after kill -9 it is ours."""
    path = tmp_path / "x.map"
    with killed_at_last(HOLD, path, "locked"):
        assert try_lock(path) is None
    descriptor = try_lock(path)
    assert descriptor is not None
    os.close(descriptor)


def test_lock_on_an_unlinked_file_is_not_the_names_lock(tmp_path: Path) -> None:
    """The holder unlinks the file when done: the next process locks the new file."""
    path = tmp_path / "x.map"
    first = try_lock(path)
    assert first is not None
    path.unlink()
    second = try_lock(path)
    assert second is not None
    assert os.fstat(second).st_ino != os.fstat(first).st_ino
    for each in (first, second):
        os.close(each)


def test_lock_checks_for_replacement_after_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was opened before it was unlinked, and locked after, is not accepted."""
    path = tmp_path / "x.map"
    unlinking = iter([path.unlink])
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        for unlink in unlinking:
            unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    descriptor = try_lock(path)
    assert descriptor is not None
    assert os.fstat(descriptor).st_ino == path.stat().st_ino
    os.close(descriptor)


def test_lock_of_a_folder_creates_no_file(tmp_path: Path) -> None:
    """One holder at a time, without a file."""
    first = try_lock_folder(tmp_path)
    assert first is not None
    assert try_lock_folder(tmp_path) is None
    os.close(first)
    assert os.listdir(tmp_path) == []


def test_exclusive_lock_serialises_threads(tmp_path: Path) -> None:
    """Threads of one process exclude each other too; the file stays, and is free for the next one."""
    path, inside, most = tmp_path / "lock", [], []

    def work() -> None:
        with exclusive_lock(path):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    executor = [threading.Thread(target=work) for _ in range(8)]
    for each in executor:
        each.start()
    for each in executor:
        each.join()
    assert most == [1] * 8


def test_lock_if_unread_sees_readers(tmp_path: Path) -> None:
    """A reader counts until the last copy of its descriptor is closed. A missing file has no readers."""
    path = tmp_path / "blob"
    path.write_bytes(b"data")
    assert is_unread(path) is True
    readers = [path.open("rb") for _ in range(2)]
    for each in readers:
        lock_shared(each.fileno())
    copy = os.dup(readers[0].fileno())
    for each in readers:
        assert is_unread(path) is False
        each.close()
    assert is_unread(path) is False
    os.close(copy)
    assert is_unread(path) is True
    path.unlink()
    assert is_unread(path) is True


def test_lock_if_unread_sees_readers_of_other_processes(tmp_path: Path) -> None:
    """After kill -9 the file is unread."""
    path = tmp_path / "blob"
    path.write_bytes(b"data")
    with killed_at_last(READ, path, "reading"):
        assert is_unread(path) is False
    assert is_unread(path) is True


def test_lock_shared_does_not_wait_for_a_removal(tmp_path: Path) -> None:
    """No process waits; a late reader can read, and does not count for a new file of that name."""
    path = tmp_path / "blob"
    path.write_bytes(b"data")
    with lock_if_unread(path) as idle, path.open("rb") as late:
        assert idle is True
        lock_shared(late.fileno())
        path.unlink()
        assert late.read() == b"data"
        path.write_bytes(b"another")
        assert is_unread(path) is True


@pytest.mark.parametrize("said", [errno.EBADF, errno.ENOLCK, errno.ENOTSUP])
def test_lock_if_unread_is_unknown_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    """The answer is None on some network file systems, and reading goes on."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(said, os.strerror(said))

    path = tmp_path / "blob"
    path.write_bytes(b"data")
    monkeypatch.setattr(fcntl, "flock", flock)
    with path.open("rb") as reader:
        lock_shared(reader.fileno())
        assert is_unread(path) is None
    assert is_unread(tmp_path) is None
