"""Tests in several processes at once, by pytest-xdist: how many, what they tell at the end. A pytest plugin.

`pyproject.toml` asks for `-n auto`: a worker for each processor; in a run of `-m "not slow"` three for two,
whose tests wait a quarter of their time for disks and timers. A run of a few files stays in one process,
which starts sooner; a run without pytest-xdist does too. The tests of a file run in one worker, in order.
Workers are processes of their own, with a temporary folder, network namespaces and ports of their own.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Files up to which a run stays in one process: the start of workers, and their imports, take seconds.
FEW = 8

# Options whose results are collected in one process.
TABLES = ("--write-matrix", "--faults-table")

Lines = dict[str, list[str]]
LINES = pytest.StashKey[Lines]()


def lines(config: pytest.Config, topic: str) -> list[str]:
    """Return the lines of a topic for the end of the run, a list to add to.

    At its end a worker hands its lines to the run.
    """
    return config.stash.setdefault(LINES, {}).setdefault(topic, [])


def worker_place() -> tuple[int, int]:
    """Return the number of this worker, from 0, and the number of all workers."""
    name, count = (
        os.environ.get("PYTEST_XDIST_WORKER", "gw0"),
        os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"),
    )
    return int(name.removeprefix("gw")) % int(count), int(count)


def _files(words: list[str]) -> Iterator[Path]:
    for word in words:
        path = Path(word.partition("::")[0])
        yield from path.rglob("test_*.py") if path.is_dir() else [path]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers for `-n auto`; 0 for a run in this process."""
    if any(config.getoption(each, None) for each in TABLES) or len(set(_files(config.args))) <= FEW:
        return 0
    count = max(2, len(os.sched_getaffinity(0)))
    return count * 3 // 2 if "not slow" in config.getoption("markexpr", "") else count


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Accept the options of `pyproject.toml` where pytest-xdist is not installed."""
    if not pluginmanager.hasplugin("xdist"):
        for option in ("--numprocesses", "--dist"):
            parser.addoption(option, help="needs pytest-xdist; ignored without it")
        parser.addoption(
            "--no-loadscope-reorder", action="store_true", help="needs pytest-xdist; ignored without it"
        )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") != "no" and any(config.getoption(each, None) for each in TABLES):
        raise pytest.UsageError(
            f"{' and '.join(TABLES)} need -n 0: their results are collected in one process"
        )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Send the lines of a worker at its end: they are sent as they are then."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["lines"] = session.config.stash.setdefault(LINES, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over the lines of a worker that has ended by itself."""
    for topic, told in getattr(node, "workeroutput", {}).get("lines", {}).items():
        lines(node.config, topic).extend(told)
