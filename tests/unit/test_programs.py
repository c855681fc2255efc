"""Missing programs are always reported: tests are skipped with a list and one apt line, or fail on demand."""

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
    """The end of the run lists the skipped tests and the one line that installs their programs."""
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
    """A test fails where its program is missing, with --require-e2e."""
    result = suite.runpytest_inprocess("-p", "no:cacheprovider", "--require-e2e")
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*needs ctr, dockerd (--require-e2e)*"])


def test_programs_that_are_there_are_not_listed(pytester: pytest.Pytester) -> None:
    """Nothing is missing: there is no section."""
    pytester.makeconftest(CONFTEST)
    pytester.makeini(INI)
    pytester.makepyfile("def test_there(): pass")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert "could not run" not in result.stdout.str()
