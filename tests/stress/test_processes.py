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
# Least number of rounds, however slow the machine is.
LEAST_ROUNDS = 20

# Seconds for each minute of `--stress`: a quarter of the time of test_mix.py.
SECONDS_PER_MINUTE = 15


def start_worker(path: Path, seed: int) -> "subprocess.Popen[str]":
    """Start a worker."""
    command = [sys.executable, "-m", "tests.stress.worker", str(path), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_worker(process: "subprocess.Popen[str]") -> int:
    """Kill a worker; return how many rounds it made. A fault that it found before is an error."""
    process.kill()
    out, err = process.communicate(timeout=30)
    assert process.returncode == -9, err
    return out.count("round")


@pytest.mark.slow
@pytest.mark.timeout(0)  # as long as --stress says
def test_stress_processes_killed_at_random(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Workers read, put, fill, evict and tag; each in turn is killed and replaced."""
    path, chance = tmp_path / "cache", random.Random(1)
    opened(path).close()
    processes = [start_worker(path, seed) for seed in range(PROCESSES)]
    seed, rounds, end = (
        PROCESSES,
        0,
        time.monotonic() + SECONDS_PER_MINUTE * request.config.getoption("--stress"),
    )
    while time.monotonic() < end or rounds < LEAST_ROUNDS:
        first = processes.pop(0)
        assert first.stdout is not None
        for _ in range(chance.randrange(1, 4)):  # let it work before it is killed
            rounds += bool(first.stdout.readline())
        rounds += kill_worker(first)
        processes.append(start_worker(path, seed))
        seed += 1
    rounds += sum(kill_worker(each) for each in processes)
    done = run("verify", "--cache-dir", str(path), "--json")
    assert (done.returncode, json.loads(done.stdout)["findings"]) == (0, []), done.stdout
    with closing(opened(path)) as folder:
        assert folder.blobs.stats()[1] > 10
        folder.evictor.evict()
        assert folder.evictor.excess() == 0
        list(Fsck(path / "blobs", folder.blobs, FsckCursor(), repair=True).steps())
        assert [each for each in folder.blobs.check() if "unknown file" not in each] == []
