"""Missing programs are never silent: skipped with a list and one apt line, or failed on demand."""

import pytest

CONFTEST = """
from tests.programs import (
    pytest_addoption, pytest_configure, pytest_runtest_setup, pytest_terminal_summary,
)
"""

INI = "[pytest]\nasyncio_default_fixture_loop_scope = function"

TESTS = """
import pytest

@pytest.mark.needs("sh")
def test_there(): pass

@pytest.mark.needs("sh", "ctr", "dockerd")
def test_missing(): pass

@pytest.mark.needs(root=True)
def test_root(): pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setattr("tests.programs.SYSTEM_PATH", "/bin")
    monkeypatch.setattr(
        "tests.programs.shutil.which", lambda name, path: f"/bin/{name}" if name == "sh" else None
    )
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    pytester.makeconftest(CONFTEST)
    pytester.makeini(INI)
    pytester.makepyfile(TESTS)
    return pytester


def test_missing_programs_skip_and_are_listed(suite: pytest.Pytester) -> None:
    """What runs, runs; the end says what did not, and the one line that brings it."""
    result = suite.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "*tests that could not run here*",
            "*::test_missing: needs ctr, dockerd",
            "*::test_root: needs root",
            "To run them: sudo apt-get install -y containerd docker.io",
            "*run pytest as root.",
        ]
    )


def test_required_programs_fail(suite: pytest.Pytester) -> None:
    """With --require-e2e nothing that was meant to run is left out quietly."""
    result = suite.runpytest_inprocess("-p", "no:cacheprovider", "--require-e2e")
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*needs ctr, dockerd (--require-e2e)*"])


def test_nothing_is_said_when_nothing_is_missing(pytester: pytest.Pytester) -> None:
    """No section, no line."""
    pytester.makeconftest(CONFTEST)
    pytester.makeini(INI)
    pytester.makepyfile("def test_there(): pass")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert "could not run" not in result.stdout.str()
