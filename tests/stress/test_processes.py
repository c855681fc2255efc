"""Processes on one cache folder, killed at random: afterwards `verify` is silent, and the quota holds."""

import json
import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from mirror.store.blobs.fsck import Fsck, FsckCursor
from tests.stress.worker import opened
from tests.unit.cli.test_app import run

PROCESSES = 3
# Rounds, however slow the machine is.
ENOUGH = 20

# Seconds for each minute of `--stress`: a quarter of what everything at once is given.
SHARE = 15


def started(path: Path, seed: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.stress.worker", str(path), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed(process: "subprocess.Popen[str]") -> int:
    """The rounds it made before it was killed; what it found wrong before that is an error."""
    process.kill()
    out, err = process.communicate(timeout=30)
    assert process.returncode == -9, err
    return out.count("round")


@pytest.mark.slow
@pytest.mark.timeout(0)  # as long as it is told to
def test_processes_that_are_killed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """They read, keep, fill, evict and tag; each in turn is killed and another takes its place."""
    path, chance = tmp_path / "cache", random.Random(1)
    opened(path).close()
    processes = [started(path, seed) for seed in range(PROCESSES)]
    seed, rounds, end = PROCESSES, 0, time.monotonic() + SHARE * request.config.getoption("--stress")
    while time.monotonic() < end or rounds < ENOUGH:
        first = processes.pop(0)
        assert first.stdout is not None
        for _ in range(chance.randrange(1, 4)):  # it has come to work before it is killed
            rounds += bool(first.stdout.readline())
        rounds += killed(first)
        processes.append(started(path, seed))
        seed += 1
    rounds += sum(killed(each) for each in processes)
    done = run("verify", "--cache-dir", str(path), "--json")
    assert (done.returncode, json.loads(done.stdout)["findings"]) == (0, []), done.stdout
    with closing(opened(path)) as folder:
        assert folder.blobs.stats()[1] > 10
        folder.evict()
        assert folder.excess() == 0
        list(Fsck(path / "blobs", folder.blobs, FsckCursor(), repair=True).steps())
        assert [each for each in folder.blobs.check() if "unknown file" not in each] == []
