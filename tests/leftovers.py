"""Check at the end of a run that nothing is left behind: no process, thread, mount or network namespace.

A pytest plugin. It checks its own run only, so that several runs can share a machine: processes are its
descendants (orphans too, which it adopts), mounts lie below its temporary folders, namespaces bear its name.
A run that leaves something behind fails, and the end of its output names the test if possible. Each worker of
a run checks itself when its tests are done, and the whole run checks what its workers have left.

Programs that tests kill leave temporary files. A run has a folder of its own for them, and removes it.
"""

import ctypes
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import pytest

from tests.parallel import lines

# linux/prctl.h: orphans among the descendants become children of this process, not of init.
PR_SET_CHILD_SUBREAPER = 36

# Variable of pytest: the folder for its temporary folders. The workers of a run inherit it.
ROOT_VARIABLE = "PYTEST_DEBUG_TEMPROOT"

# Folder for temporary files outside this run.
OUTSIDE = Path(os.environ.get(ROOT_VARIABLE) or tempfile.gettempdir())

# Grace, in seconds, for processes that were told to end and are still at it. A clean run waits for nothing.
GRACE = 5.0

# The name of this run, which begins the names of what it creates outside pytest's temporary folder.
RUN = f"e2e-{os.getpid()}"

NAMESPACES = Path("/run/netns")

# Threads that keep a process from its end -> the test after which each was seen first.
Threads = WeakKeyDictionary[threading.Thread, str]

PRESENT = pytest.StashKey[set[int]]()
THREADS = pytest.StashKey[Threads]()
FOLDER = pytest.StashKey[Path]()
TOPIC = "left behind by this run"


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a short name: a socket's path may have 108 characters, podman's runroot 50."""
    with TemporaryDirectory(prefix=f"{RUN}-", dir=OUTSIDE, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def own_temporary_files() -> Iterator[None]:
    """Have temporary files of this process and its descendants in one folder, and remove it.

    Pytest's own temporary folders stay where they are. Tests become other users, who may use the folder too.
    """
    with short_folder() as folder, pytest.MonkeyPatch.context() as patch:
        folder.chmod(0o1777)
        patch.setenv(ROOT_VARIABLE, os.environ.get(ROOT_VARIABLE, str(OUTSIDE)))
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield


def children(pid: int) -> Iterator[int]:
    """Processes below a process, at any depth."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from children(child)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs: it exists and is no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def started_by(pid: int) -> str:
    """The test that started a program: pytest has put its name into the environment (PYTEST_CURRENT_TEST)."""
    with suppress(OSError):
        found = re.search(rb"(?:^|\0)PYTEST_CURRENT_TEST=([^\0]*)", Path(f"/proc/{pid}/environ").read_bytes())
        if found:
            return found[1].decode(errors="replace")
    return "an unknown test"


def described(pid: int) -> str:
    command = b""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    words = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return f"process {pid} ({words[:200] or 'without a command line'}), started by {started_by(pid)}"


def mounts() -> Iterator[str]:
    """Mount points of this process's mount namespace (proc_pid_mountinfo(5), field 5)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split(" ")[4])


def leftover_mounts(folder: Path | None) -> Iterator[str]:
    """Mounts below pytest's temporary folder, and below temporary folders with this run's name."""
    for place in mounts():
        inside = folder is not None and Path(place).is_relative_to(folder)
        if inside or any(part.startswith(f"{RUN}-") for part in Path(place).parts):
            yield f"mount {place}"


def leftover_namespaces() -> Iterator[str]:
    with suppress(FileNotFoundError):
        for path in NAMESPACES.iterdir():
            if path.name == RUN or path.name.startswith(f"{RUN}-"):
                yield f"network namespace {path.name}"


def leftover_processes(present: set[int]) -> list[int]:
    """Descendants that outlive GRACE, without those that were `present` before the run."""
    end = time.monotonic() + GRACE
    while True:
        left = [pid for pid in children(os.getpid()) if pid not in present and is_alive(pid)]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


def note_threads(threads: Threads, test: str) -> None:
    """Keep the test after which each thread was seen first."""
    for thread in threading.enumerate():
        if not thread.daemon:
            threads.setdefault(thread, test)


def leftover_threads(threads: Threads) -> Iterator[str]:
    """Threads of tests that outlive GRACE; the interpreter waits for them at its end."""
    end = time.monotonic() + GRACE
    for thread, test in list(threads.items()):
        if test:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                yield f"thread {thread.name}, seen first after {test}"


def pytest_configure(config: pytest.Config) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    config.stash[PRESENT] = set(children(os.getpid()))
    config.stash[THREADS] = Threads()
    note_threads(config.stash[THREADS], "")
    if not hasattr(config, "workerinput"):
        stack = ExitStack()
        stack.enter_context(own_temporary_files())
        config.add_cleanup(stack.close)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    note_threads(item.config.stash[THREADS], item.nodeid)


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> None:
    pytestconfig.stash[FOLDER] = tmp_path_factory.getbasetemp()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fail a run that leaves something behind; end its processes, so that the next run starts clean.

    Workers have ended by then, and have told what they left.
    """
    yield
    stash, found = session.config.stash, lines(session.config, TOPIC)
    found += leftover_threads(stash[THREADS])
    left = leftover_processes(stash[PRESENT])
    found += [described(pid) for pid in left]
    found += [*leftover_mounts(stash.get(FOLDER, None)), *leftover_namespaces()]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = lines(config, TOPIC)
    if not found:
        return
    terminalreporter.section(TOPIC, red=True)
    for each in found:
        terminalreporter.line(each)
    terminalreporter.line(
        "The run fails for it. The processes were killed; mounts and namespaces are still there."
    )
