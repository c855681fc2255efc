"""`backup` and `restore` as processes: what they print, their exit status, and kills."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_app import COMMAND, run
from tests.unit.manage.backup.test_restore import filled, tags_in

# A backup that is killed with its tenth write.
KILLED = """
import os, signal, sys
from pathlib import Path
from mirror.manage.backup.writer import write_backup
from mirror.manage.carry.export import OutputFolder
from mirror.store.cache_dir import CacheDirectory
writes = []
def on_bytes(count):
    writes.append(count)
    if len(writes) == 10:
        os.kill(os.getpid(), signal.SIGKILL)
write_backup(CacheDirectory(Path(sys.argv[1])), OutputFolder(Path(sys.argv[2])), "mirror.tar", on_bytes)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with pins, a token and a hosted registry."""
    folder = tmp_path_factory.mktemp("source") / "cache"
    asyncio.run(filled(folder))
    return folder


def on(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(arguments[0], "--config", "", "--cache-dir", str(folder), *arguments[1:])


def test_backup_and_restore(source: Path, tmp_path: Path) -> None:
    """Both commands say what they have done; a dry run says what would be done, and writes nothing."""
    file, new = tmp_path / "mirror.tar", tmp_path / "new"
    plan = on(source, "backup", "--dry-run", "--json")
    assert json.loads(plan.stdout)["blobs"] == 5
    assert not list(tmp_path.iterdir())
    done = on(source, "backup", "-o", str(file))
    assert (done.returncode, done.stdout[:20]) == (0, "5 blobs of office, 9"), done.stderr
    assert done.stdout.endswith("1 pins, 1 tokens\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    tried = on(new, "restore", "--dry-run", "--json", str(file))
    assert json.loads(tried.stdout)["hosted"] == ["office"]
    assert not new.exists()
    back = on(new, "restore", str(file))
    assert back.returncode == 0, back.stderr
    assert back.stdout.endswith(f"restored to {new}\n")
    assert tags_in(new) == ["1.0"]
    again = on(new, "restore", str(file))
    assert again.returncode == 1
    assert "has something in it" in again.stderr


def test_backup_through_a_pipe(source: Path, tmp_path: Path) -> None:
    """Standard output has the archive and nothing else."""
    new = tmp_path / "new"
    options = ["--config", "", "--cache-dir"]
    with subprocess.Popen(
        [*COMMAND, "backup", *options, str(source), "-o", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as sender:
        receiver = subprocess.run(
            [*COMMAND, "restore", *options, str(new), "-"],
            stdin=sender.stdout,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert sender.stderr is not None
        assert b"5 blobs of office" in sender.stderr.read()
    assert (sender.returncode, receiver.returncode) == (0, 0), receiver.stderr
    assert tags_in(new) == ["1.0"]


def test_backup_of_wrong_usage(source: Path, tmp_path: Path) -> None:
    """A sentence, and 2 for usage, 1 for what cannot be read."""
    for arguments, status, words in (
        (("backup",), 2, "backup -o FILE"),
        (("backup", "-o", str(tmp_path)), 2, "is a folder"),
        (("backup", "-o", str(tmp_path / "none" / "x")), 2, "there is no folder"),
        (("restore", __file__), 1, "nothing was kept of it"),
    ):
        folder = source if arguments[0] == "backup" else tmp_path / "new"
        found = on(folder, *arguments)
        assert (found.returncode, words in found.stderr) == (status, True), found.stderr
        assert "Traceback" not in found.stderr
    assert not list(tmp_path.iterdir())


def test_restore_killed_is_done_by_the_same_command(source: Path, tmp_path: Path) -> None:
    """kill -9 while the archive comes: no mirror's folder is there; the same command makes it."""
    file, new = tmp_path / "mirror.tar", tmp_path / "new"
    assert on(source, "backup", "-o", str(file)).returncode == 0
    arguments = ["restore", "--config", "", "--cache-dir", str(new)]
    data = file.read_bytes()
    with subprocess.Popen([*COMMAND, *arguments, "-"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(data[: len(data) // 2])
        process.stdin.flush()
        while not (new / "restoring" / "partial").is_dir():
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
    refused = on(new, "pins")
    assert refused.returncode == 1
    done = on(new, "restore", str(file))
    assert done.returncode == 0, done.stderr
    assert tags_in(new) == ["1.0"]


def test_backup_killed_leaves_the_last_one(source: Path, tmp_path: Path) -> None:
    """kill -9 in the middle: the earlier file is as it was, and the next backup takes its place."""
    file = tmp_path / "mirror.tar"
    file.write_bytes(b"the last one")
    program = [sys.executable, "-c", KILLED, str(source), str(tmp_path)]
    assert subprocess.run(program, check=False, timeout=60).returncode == -signal.SIGKILL
    assert file.read_bytes() == b"the last one"
    assert (tmp_path / "mirror.tar.part").exists()
    assert on(source, "backup", "-o", str(file)).returncode == 0
    assert [each.name for each in tmp_path.iterdir()] == ["mirror.tar"]
