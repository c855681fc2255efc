"""Foundation of every test: an event loop in which nothing may block, and a check for needed programs."""

import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache

import pytest
import structlog
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

from mirror.transfer import download
from mirror.util.log import set_debug
from mirror.util.tasks import Tasks
from tests.fakes.registry import FakeRegistry

# Compiled modules are kept even where the environment says otherwise. Importing the server takes 0.25 s of
# processor time with them and 0.56 s without, in each process of a test; collecting all tests takes 7 s with
# them and 15 s without, in each worker.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A busy machine makes generated input no worse: the limits of pytest-timeout are those of these tests too.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = [
    "pytester",
    "tests.memory",
    "tests.parallel",
    "tests.programs",
    "tests.e2e.report",
    "tests.e2e.matrix.table",
    "tests.forked",
    "tests.leftovers",
]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxies of this machine: tests speak to loopback."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@cache
def _detector() -> BlockBuster:
    """Return the detector of blocking calls, made once: that takes as long as many a test."""
    detector = BlockBuster()
    # The socket does not block, and the pages were found in the page cache first.
    detector.functions["os.sendfile"].can_block_in("mirror/web/sendfile.py", {"_step"})
    for function in detector.functions.values():
        function.can_block_in("tests/fakes/programs.py", {"write_file", "__init__", "calls"})
    return detector


@pytest.fixture(autouse=True)
def blockbuster() -> BlockBuster:
    """Raise BlockingError for a blocking call in a running event loop, which would stall every client.

    The detector stays active behind the test, where no event loop runs: its change takes longer than many a
    test. A test that has deactivated the detector leaves the next one an active detector.
    """
    detector = _detector()
    detector.activate()
    return detector


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A nested run in this process, without the plugins that `pyproject.toml` leaves out.

    Behind it pytester forgets the modules that were imported in it: a library of which some were there before
    would have others twice.
    """
    monkeypatch.setenv("PYTEST_ADDOPTS", "-pno:anyio -pno:schemathesis -pno:valkey")
    return pytester


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Restore the logging of other tests: its configuration is global."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    set_debug(enabled=False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def debug_log() -> Iterator[None]:
    """Have debug lines written, which otherwise only a configured log of level debug has."""
    set_debug(enabled=True)
    yield
    set_debug(enabled=False)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the pauses between attempts."""
    monkeypatch.setattr(download, "PAUSES", (0.0,))


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    """Tasks that are cancelled at the end of the test."""
    tasks = Tasks()
    yield tasks
    await tasks.close()


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    """An upstream registry."""
    async with FakeRegistry() as fake:
        yield fake
