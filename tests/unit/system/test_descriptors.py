"""The limit of open files, and what clients get of it."""

import os
import resource
import subprocess
import sys

import pytest

from mirror.system.descriptors import FEWEST_CLIENTS, RESERVE, are_exhausted, clients_within


@pytest.mark.parametrize(
    ("limit", "clients"),
    [
        (resource.RLIM_INFINITY, 1000),
        (1024, 1024 // 2 - RESERVE),
        (65536, 1000),
        (100, FEWEST_CLIENTS),
    ],
)
def test_clients_get_less_than_half(limit: int, clients: int) -> None:
    """A client that pulls has a second descriptor, and the reserve is nobody's."""
    assert clients_within(limit, 1000) == clients


def test_soft_limit_is_raised_to_the_hard_one() -> None:
    """A process that begins with a low soft limit can use its hard one."""
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    code = (
        "import resource; from mirror.system.descriptors import raise_limit;"
        "print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)),
    )
    assert done.stdout.decode().split() == [str(hard), str(hard)]


def test_table_of_descriptors_grows_without_leaving_one_open() -> None:
    """The kernel's table has room afterwards (FDSize), if the limit allows it, and nothing else is open."""
    code = (
        "import os; from mirror.system.descriptors import grow_table; before = os.listdir('/proc/self/fd');"
        "grow_table(1000); print(before == os.listdir('/proc/self/fd'));"
        "print(next(line for line in open('/proc/self/status') if line.startswith('FDSize')))"
    )
    for soft, room in ((4096, 2 * (1000 + RESERVE)), (512, 512)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, 4096)),  # noqa: B023
        )
        same, _, size = done.stdout.decode().split()
        assert same == "True"
        assert room <= int(size) <= 2 * room


def test_exhausted_descriptors_are_noticed() -> None:
    """Nothing can be opened while the limit is what is open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert not are_exhausted()
    free = os.dup(2)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        assert are_exhausted()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
