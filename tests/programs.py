"""Programs that end-to-end tests drive: looked for, asked for, never silently missing.

`@pytest.mark.needs("dockerd", root=True)` skips a test where the program is not installed, and the end of the
run says which tests that were and the one line that brings what they need. With `--require-e2e` they fail.
"""

import os
import shutil
from collections.abc import Iterable, Iterator

import pytest

# Program -> the Debian package that has it.
PACKAGES = {
    "btrfs": "btrfs-progs",
    "busybox": "busybox-static",
    "containerd": "containerd",
    "ctr": "containerd",
    "debootstrap": "debootstrap",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "faketime": "faketime",
    "ip": "iproute2",
    "iptables": "iptables",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "nginx": "nginx-light",
    "podman": "podman",
    "skopeo": "skopeo",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
}

# Where Debian has daemons, which is not on everybody's PATH.
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"

MISSING = pytest.StashKey[dict[str, set[str]]]()
ROOT = "root"


def program(name: str) -> str:
    """The path of an installed program."""
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed: apt-get install {PACKAGES[name]}")
    return path


def missing_for(marks: Iterable[pytest.Mark]) -> Iterator[str]:
    """What the marked test needs and this machine lacks: names of programs, and ROOT."""
    for mark in marks:
        yield from (name for name in mark.args if shutil.which(name, path=SYSTEM_PATH) is None)
        if mark.kwargs.get("root") and os.geteuid() != 0:
            yield ROOT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-e2e", action="store_true", help="fail, instead of skip, tests whose programs are missing"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MISSING] = {}
    config.addinivalue_line("markers", "needs(*programs, root=False): an end-to-end test that runs these")


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = set(missing_for(item.iter_markers("needs")))
    if not missing:
        return
    item.config.stash[MISSING][item.nodeid] = missing
    reason = f"needs {', '.join(sorted(missing))}"
    if item.config.getoption("--require-e2e"):
        pytest.fail(f"{reason} (--require-e2e)", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lacking = config.stash[MISSING]
    if not lacking:
        return
    terminalreporter.section("tests that could not run here")
    for test, names in sorted(lacking.items()):
        terminalreporter.line(f"{test}: needs {', '.join(sorted(names))}")
    names = set().union(*lacking.values())
    packages = sorted({PACKAGES[name] for name in names - {ROOT}})
    if packages:
        terminalreporter.line(f"To run them: sudo apt-get install -y {' '.join(packages)}")
    if ROOT in names:
        terminalreporter.line("Some of them run daemons and mount: run pytest as root.")
