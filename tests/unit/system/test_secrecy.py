"""Serving processes are closed to others of the same user, and the kernel writes no core file of them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.programs import without_coverage

SCRIPT = """
import ctypes
from mirror.system.secrecy import forbid_core_dumps
libc = ctypes.CDLL(None)
before = libc.prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
forbid_core_dumps()
print(before, libc.prctl(3, 0, 0, 0, 0))
"""


def test_core_dumps_are_forbidden() -> None:
    """The kernel itself says so afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1", "0"]


# Root looks into every process, unless it lacks capabilities; the process must then lack them as well.
PLAIN = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def readable(pid: str) -> bool:
    """Return whether another process of the same user can read the environment of a process."""
    reader = [*PLAIN, "cat", f"/proc/{pid}/environ"]
    return subprocess.run(reader, capture_output=True, check=False, timeout=60).returncode == 0


def test_serving_processes_are_closed_to_others(tmp_path: Path) -> None:
    """Parent and worker; a process that does not forbid it is open to those of its user."""
    serve = [sys.executable, "-m", "mirror", "serve", "--offline", "--listen", "127.0.0.1:0", "--config="]
    with subprocess.Popen(
        [*PLAIN, *serve, "--cache-dir", str(tmp_path / "cache")],
        stderr=subprocess.PIPE,
        text=True,
        env=without_coverage(),
    ) as process:
        assert process.stderr is not None
        try:
            assert "serves on" in process.stderr.readline()
            workers: list[str] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert workers
            assert [readable(pid) for pid in (str(process.pid), *workers)] == [False] * (1 + len(workers))
        finally:
            process.kill()
    with subprocess.Popen(
        [*PLAIN, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as open_to_others:
        assert open_to_others.stdin is not None
        assert open_to_others.stdout is not None
        print("here", file=open_to_others.stdin, flush=True)
        assert open_to_others.stdout.readline() == "here\n"  # it is cat by now, and no longer setpriv
        assert readable(str(open_to_others.pid))
