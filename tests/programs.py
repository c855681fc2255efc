"""Programs that end-to-end tests drive: a missing one is always reported. A pytest plugin.

`@pytest.mark.needs("dockerd", root=True)` skips a test where the program is not installed. The end of the run
lists the skipped tests and the one command that installs their programs. With `--require-e2e` they fail.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.parallel import lines

# Program -> its Debian package.
PACKAGES = {
    "btrfs": "btrfs-progs",
    "busybox": "busybox-static",
    "chromium": "chromium",
    "containerd": "containerd",
    "ctr": "containerd",
    "debootstrap": "debootstrap",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "faketime": "faketime",
    "haproxy": "haproxy",
    "ip": "iproute2",
    "iptables": "iptables",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "nginx": "nginx-light",
    "node": "nodejs",
    "nsenter": "util-linux",
    "podman": "podman",
    "redis-server": "redis-server",
    "runc": "runc",
    "skopeo": "skopeo",
    "systemd-analyze": "systemd",
    "dpkg-deb": "dpkg",
    "unshare": "util-linux",
}

# With the folders where Debian keeps daemons, which are not on every user's PATH.
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


# Signals that a run ignores which a shell has started in the background, or nohup(1).
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


@pytest.fixture(scope="session", autouse=True)
def _heeded_signals() -> None:
    """Have programs of tests heed the signals that this run ignores.

    A program inherits that a signal is ignored, but not a handler that ignores it.
    """
    for number in IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def without_coverage() -> dict[str, str]:
    """Return the environment for a process whose imports, signals or user coverage would disturb."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


# Topics of the lines for the end of a run (tests/parallel.py).
NOT_RUN = "tests that could not run here"
MISSING = "missing programs"
MISSING_CLIENTS = "pinned clients that were not driven"
ROOT = "root"


def program(name: str) -> str:
    """Return the path of an installed program. FileNotFoundError names the package."""
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed: apt-get install {PACKAGES[name]}")
    return path


def call(*command: str | Path, **env: str) -> str:
    """Run a program to its end; return what it prints."""
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def missing_for(marks: Iterable[pytest.Mark]) -> Iterator[str]:
    """Names of the programs that the marked test needs and this machine lacks, and ROOT."""
    for mark in marks:
        yield from (name for name in mark.args if shutil.which(name, path=SYSTEM_PATH) is None)
        if mark.kwargs.get("root") and os.geteuid() != 0:
            yield ROOT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-e2e", action="store_true", help="fail, instead of skip, tests whose programs are missing"
    )
    parser.addoption(
        "--nightly",
        action="store_true",
        help="run only what is left out otherwise: long tables of real clients",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    nightly = [each for each in items if each.get_closest_marker("nightly") is not None]
    rest = [each for each in items if each.get_closest_marker("nightly") is None]
    run, left = (nightly, rest) if config.getoption("--nightly") else (rest, nightly)
    config.hook.pytest_deselected(items=left)
    items[:] = run


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*programs, root=False): runs these programs, skipped where one is missing"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = sorted(set(missing_for(item.iter_markers("needs"))))
    if not missing:
        return
    reason = f"needs {', '.join(missing)}"
    lines(item.config, NOT_RUN).append(f"{item.nodeid}: {reason}")
    lines(item.config, MISSING).extend(missing)
    if item.config.getoption("--require-e2e"):
        pytest.fail(f"{reason} (--require-e2e)", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    _report_clients(terminalreporter, lines(config, MISSING_CLIENTS))
    tests, names = lines(config, NOT_RUN), set(lines(config, MISSING))
    if not tests:
        return
    terminalreporter.section(NOT_RUN)
    for each in sorted(tests):
        terminalreporter.line(each)
    packages = sorted({PACKAGES[name] for name in names - {ROOT}})
    if packages:
        terminalreporter.line(f"To run them: sudo apt-get install -y {' '.join(packages)}")
    if ROOT in names:
        terminalreporter.line("Some of them run daemons and mount: run pytest as root.")


def _report_clients(terminalreporter: pytest.TerminalReporter, clients: list[str]) -> None:
    """List the pinned clients that were not there, which `--require-e2e` does not require."""
    if clients:
        terminalreporter.section(MISSING_CLIENTS)
        terminalreporter.line(", ".join(clients))
        terminalreporter.line("To make them: .ci/clients")
