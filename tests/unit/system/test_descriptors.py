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
