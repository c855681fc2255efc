"""The lock: one holder among all processes, freed by any death."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mirror.store.lock import locked, try_folder, try_lock

HOLD = """
import sys
from pathlib import Path
from mirror.store.lock import try_lock
assert try_lock(Path(sys.argv[1])) is not None
print("locked", flush=True)
sys.stdin.read()
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """The second gets nothing, and the lock is free when the first lets go."""
    path = tmp_path / "x.map"
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    os.close(first)
    second = try_lock(path)
    assert second is not None
    os.close(second)


def test_the_kernel_frees_it_when_the_holder_is_killed(tmp_path: Path) -> None:
    """Another process has it; kill -9, and it is ours."""
    path = tmp_path / "x.map"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert try_lock(path) is None
        other.send_signal(signal.SIGKILL)
        other.wait()
    descriptor = try_lock(path)
    assert descriptor is not None
    os.close(descriptor)


def test_a_lock_on_a_name_that_is_gone_is_no_lock(tmp_path: Path) -> None:
    """The holder unlinks the file when it is done: who comes next locks the new one."""
    path = tmp_path / "x.map"
    first = try_lock(path)
    assert first is not None
    path.unlink()
    second = try_lock(path)
    assert second is not None
    assert os.fstat(second).st_ino != os.fstat(first).st_ino
    for each in (first, second):
        os.close(each)


def test_a_file_that_is_replaced_between_opening_and_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before it was unlinked, locked after: looked at again, and not believed."""
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


def test_a_folder_is_locked_without_a_file(tmp_path: Path) -> None:
    """By one at a time; nothing is made in it."""
    first = try_folder(tmp_path)
    assert first is not None
    assert try_folder(tmp_path) is None
    os.close(first)
    assert os.listdir(tmp_path) == []


def test_one_after_the_other(tmp_path: Path) -> None:
    """Threads of one process too; the file stays, and the next one finds it free."""
    path, inside, most = tmp_path / "lock", [], []

    def work() -> None:
        with locked(path):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == [1] * 8
