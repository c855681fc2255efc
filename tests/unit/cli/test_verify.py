"""`registry-mirror verify`, as a user runs it."""

import json
import os
import pty
import re
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from tests.programs import without_coverage
from tests.unit.cli.terminal import read_to_end
from tests.unit.cli.test_app import COMMAND, run
from tests.unit.store.blobs.test_blobs import file_of
from tests.unit.store.test_eviction import put

TWO = Digest.of(b"two")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with two blobs."""
    with closing(CacheDirectory(tmp_path / "cache")) as folder:
        for data in (b"one", b"two"):
            put(folder, tmp_path, data)
    return tmp_path / "cache"


def spoil(cache: Path) -> None:
    path = file_of(cache, TWO)
    path.chmod(0o600)
    path.write_bytes(b"owt")


def verify(cache: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run("verify", "--cache-dir", str(cache), *arguments)


def test_verify_of_a_sound_cache(cache: Path) -> None:
    """Exit status 0, and the amount that was checked."""
    done = verify(cache)
    assert (done.returncode, done.stdout) == (0, "2 blobs checked, 6 B read: nothing wrong\n")
    assert verify(cache, "--quick").stdout == "2 blobs checked: nothing wrong\n"


def test_verify_finds_and_repairs_a_corrupt_blob(cache: Path) -> None:
    """One line per problem and exit status 1; --repair repairs it and names the quarantine."""
    spoil(cache)
    assert verify(cache, "--quick").returncode == 0
    done = verify(cache)
    line, summary = done.stdout.splitlines()
    assert (done.returncode, line) == (1, f"{TWO}: the file does not hash to its name")
    assert summary == "2 blobs checked, 6 B read: 1 wrong; --repair repairs that"
    done = verify(cache, "--json")
    finding = {"what": str(TWO), "wrong": "the file does not hash to its name", "done": None}
    found = {"checked": 2, "bytes": 6, "wrong": 1, "leftovers": 0, "findings": [finding]}
    assert (done.returncode, json.loads(done.stdout)) == (1, found)
    done = verify(cache, "--repair")
    assert (done.returncode, "(entry removed, file quarantined)" in done.stdout) == (1, True)
    assert f"1 wrong; 1 repaired; wrong files are in {cache / 'quarantine'} now" in done.stdout
    assert verify(cache).stdout == "1 blob checked, 3 B read: nothing wrong\n"
    assert [each.read_bytes() for each in (cache / "quarantine").iterdir()] == [b"owt"]


def test_verify_of_what_is_no_cache(tmp_path: Path) -> None:
    """Exit status 2, no traceback, and no folder is created."""
    done = verify(tmp_path / "nowhere")
    assert (done.returncode, "there is no cache in" in done.stderr) == (2, True)
    assert not (tmp_path / "nowhere").exists()
    done = verify(tmp_path, "--rate", "fast")
    assert (done.returncode, done.stderr) == (
        2,
        "registry-mirror: --rate: must be a size, for instance 50MiB, not 'fast'\n",
    )


def test_verify_goes_on_after_an_interrupt(cache: Path, tmp_path: Path) -> None:
    """Ctrl-C says how far it came and leaves a cursor; the end of the next run removes the cursor."""
    blobs = [bytes([number]) * 1024 * 1024 for number in range(6)]
    with closing(CacheDirectory(cache)) as folder:
        digests = [put(folder, tmp_path, data)[0] for data in blobs]
    first = file_of(cache, min([*digests, TWO, Digest.of(b"one")], key=str))
    first.unlink()
    # Tests that run in the background ignore SIGINT, and so would the processes that they start.
    command = ["env", "--default-signal=INT", *COMMAND]
    command += ["verify", "--cache-dir", str(cache), "--rate", "1MiB"]
    # Without coverage, which holds a lock that a signal may leave held.
    pipe = subprocess.PIPE
    env = without_coverage()
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "the file is missing" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        said = process.stderr.read()
        assert re.fullmatch(
            r"Stopped after [\d.]+ [KM]?i?B of 6 MiB\. The next `.+` goes on from there\.\n", said
        )
    cursor = json.loads((cache / "verify.cursor").read_text())
    assert (0 < cursor["checked"] < 8, cursor["wrong"]) == (True, 1), cursor
    done = verify(cache, "--json")
    found = json.loads(done.stdout)
    assert (found["checked"], found["wrong"], found["findings"]) == (8, 1, [])
    assert done.returncode == 1  # what the first part found counts
    assert not (cache / "verify.cursor").exists()


def test_verify_shows_progress_on_a_terminal(cache: Path) -> None:
    """A bar with units."""
    main, terminal = pty.openpty()
    command = [*COMMAND, "verify", "--cache-dir", str(cache)]
    with subprocess.Popen(command, stderr=terminal, stdout=subprocess.PIPE, text=True) as process:
        os.close(terminal)
        shown = read_to_end(main)
        assert process.stdout is not None
        assert "nothing wrong" in process.stdout.read()
    os.close(main)
    assert (process.returncode, b"6/6 bytes" in shown) == (0, True)
