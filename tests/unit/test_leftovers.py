"""A run that leaves a process, a thread, a mount or a network namespace behind fails and names it."""

import os
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from tests import leftovers
from tests.disks import unmount
from tests.programs import program

CONFTEST = 'pytest_plugins = ["tests.leftovers"]'

INI = "[pytest]\nasyncio_default_fixture_loop_scope = function"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setattr(leftovers, "RUN", f"e2e-{os.getpid()}-nested")
    pytester.makeconftest(CONFTEST)
    pytester.makeini(INI)
    return pytester


def run(suite: pytest.Pytester, test: str) -> pytest.RunResult:
    suite.makepyfile(test)
    return suite.runpytest_inprocess("-p", "no:cacheprovider")


def test_leftovers_of_a_clean_run_are_none(suite: pytest.Pytester) -> None:
    """Programs that have ended, and zombies, are not left behind."""
    result = run(
        suite,
        """
        import subprocess
        def test_clean(): subprocess.run(["true"])
        def test_orphan(): subprocess.run(["sh", "-c", "true &"])
        """,
    )
    assert result.ret == pytest.ExitCode.OK
    assert "left behind" not in result.stdout.str()


def test_leftover_process_fails_the_run(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orphan that outlives the run is named with its test, and killed."""
    monkeypatch.setattr(leftovers, "GRACE", 0.0)
    result = run(
        suite,
        """
        import subprocess
        def test_before(): pass
        def test_orphan(): subprocess.run(["sh", "-c", "sleep 1000 & echo $! > pid"])
        """,
    )
    pid = int((suite.path / "pid").read_text())
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*left behind by this run*",
            f"process {pid} (*), started by *::test_orphan (call)",
            "The run fails for it.*",
        ]
    )
    os.waitpid(pid, 0)  # adopted by this process, and killed


def test_leftover_thread_fails_the_run(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that outlives the run is named with its test; a daemon, and one that has ended, is not."""
    monkeypatch.setattr(leftovers, "GRACE", 0.0)
    reader, writer = os.pipe()
    monkeypatch.setenv("READER", str(reader))
    result = run(
        suite,
        """
        import os, threading
        def test_clean():
            threading.Thread(target=threading.Event().wait, daemon=True, name="daemon").start()
            ended = threading.Thread(target=str)
            ended.start()
            ended.join()
        def test_thread():
            reading = (int(os.environ["READER"]), 1)
            threading.Thread(target=os.read, args=reading, name="reading").start()
        """,
    )
    os.close(writer)
    for thread in threading.enumerate():
        if thread.name == "reading":
            thread.join()
    os.close(reader)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*left behind by this run*", "thread reading, * after *::test_thread"])
    result.stdout.no_fnmatch_line("thread daemon*")


def test_temporary_files_go_with_the_run(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Files that killed programs leave in their temporary folder are removed, and the folder too."""
    outside, told = tempfile.gettempdir(), tmp_path / "told"
    monkeypatch.setenv("TOLD", str(told))
    result = run(
        suite,
        """
        import os, subprocess, tempfile
        from pathlib import Path
        def test_files():
            made = subprocess.check_output(["mktemp", "-d"], text=True).strip()
            Path(made, "file").touch()
            Path(os.environ["TOLD"]).write_text(f"{made}\\n{tempfile.mkdtemp()}")
        """,
    )
    assert result.ret == pytest.ExitCode.OK
    made, also = map(Path, told.read_text().splitlines())
    assert made.parent == also.parent != Path(outside)
    assert not made.parent.exists()
    assert tempfile.gettempdir() == outside


@pytest.mark.needs(root=True)
def test_leftover_mount_fails_the_run(suite: pytest.Pytester, tmp_path: Path) -> None:
    """A mount below the run's temporary folder is named."""
    result = run(
        suite,
        f"""
        import subprocess
        from pathlib import Path
        def test_mount(tmp_path):
            Path({str(tmp_path)!r}, "place").write_text(str(tmp_path))
            subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
        """,
    )
    place = Path((tmp_path / "place").read_text())
    unmount(place)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*left behind by this run*", f"mount {place}"])


@pytest.mark.needs("ip", root=True)
def test_leftover_namespace_fails_the_run(suite: pytest.Pytester) -> None:
    """A network namespace with the run's name is named."""
    result = run(
        suite,
        """
        import subprocess
        from tests import leftovers, programs
        def test_namespace():
            subprocess.run([programs.program("ip"), "netns", "add", leftovers.RUN], check=True)
        """,
    )
    subprocess.run([program("ip"), "netns", "delete", leftovers.RUN], check=True)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*left behind by this run*", f"network namespace {leftovers.RUN}"])
