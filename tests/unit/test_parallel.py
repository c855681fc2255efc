"""Workers: how many a run has, and that the whole run says and fails for what a worker has left behind."""

import os
from pathlib import Path

import pytest

from tests import leftovers
from tests.e2e.processes import free_port
from tests.parallel import FEW, lines, pytest_xdist_auto_num_workers, worker_place
from tests.programs import PACKAGES

CONFTEST = """
pytest_plugins = ["tests.parallel", "tests.programs", "tests.leftovers"]

def pytest_configure(config):
    from tests import leftovers
    if hasattr(config, "workerinput"):
        leftovers.GRACE = 0.0
"""

INI = "[pytest]\nasyncio_default_fixture_loop_scope = function"

TESTS = """
import subprocess
import pytest
from pathlib import Path

def test_orphan(): subprocess.run(["sh", "-c", "sleep 1000 & echo $! > pid"])

@pytest.mark.needs("no-such-program")
def test_missing(): pass
"""


def workers(pytester: pytest.Pytester, *words: str | Path) -> int:
    return pytest_xdist_auto_num_workers(pytester.parseconfig(*words))


def test_run_of_few_files_stays_in_one_process(pytester: pytest.Pytester) -> None:
    """A file, a test of it, and a small folder are one process; a large folder has a worker per processor."""
    for number in range(FEW + 1):
        pytester.makepyfile(**{f"test_{number}": "def test_one(): pass"})
    few = [f"test_{number}.py" for number in range(FEW)]
    assert [workers(pytester, *each) for each in (few, ["test_0.py::test_one"], ["test_0.py"] * 20)] == [
        0,
        0,
        0,
    ]
    count = max(2, len(os.sched_getaffinity(0)))
    assert workers(pytester, pytester.path) == count
    assert workers(pytester, "-m", "not slow", pytester.path) == count * 3 // 2


def test_worker_has_ports_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers never choose the same port, however close in time."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    for number in range(3):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        assert worker_place() == (number, 3)
        assert {free_port() % 3 for _ in range(5)} == {(10_000 + number) % 3}


def test_leftovers_of_workers_fail_the_whole_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the run names the process, and the programs that a worker missed."""
    monkeypatch.setitem(PACKAGES, "no-such-program", "no-such-package")
    monkeypatch.setattr(leftovers, "GRACE", 0.0)
    pytester.makeconftest(CONFTEST)
    pytester.makeini(INI)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-n", "1", "--dist", "loadfile")
    pid = int((pytester.path / "pid").read_text())
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*left behind by this run*",
            f"process {pid} (*), started by *::test_orphan (call)",
            "*tests that could not run here*",
            "*::test_missing: needs no-such-program",
            "To run them: sudo apt-get install -y no-such-package",
        ]
    )
    os.waitpid(pid, 0)  # killed by the worker, and inherited from it


def test_lines_are_kept_by_topic(pytester: pytest.Pytester) -> None:
    """Two callers add to the same list."""
    config = pytester.parseconfig()
    lines(config, "a").append("x")
    lines(config, "a").append("y")
    assert (lines(config, "a"), lines(config, "b")) == (["x", "y"], [])
