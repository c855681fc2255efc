"""Missing programs are always reported: tests are skipped with a list and one apt line, or fail on demand."""

import signal

import pytest

from tests.programs import IGNORED

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


def test_programs_heed_signals_that_the_run_ignores(pytester: pytest.Pytester) -> None:
    """A run that a shell has started in the background ignores SIGINT; a program of a test ends by it."""
    pytester.makeconftest("from tests.programs import _heeded_signals")
    pytester.makeini(INI)
    pytester.makepyfile(
        """
        import signal, subprocess
        def test_signals():
            for name in ("INT", "HUP", "QUIT"):
                number = getattr(signal, f"SIG{name}")
                assert subprocess.run(["sh", "-c", f"kill -{name} $$; echo goes on"]).returncode == -number
                signal.raise_signal(number)  # which this run ignores
        """
    )
    before = {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
    try:
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    result.assert_outcomes(passed=1)
