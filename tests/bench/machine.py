"""Machine of the bench: its cores, its versions, and the load of a server on it."""

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from mmap import mmap
from pathlib import Path
from threading import Event

from mirror import __version__
from tests.programs import PACKAGES, SYSTEM_PATH

# Program of the bench -> its Debian package.
NEEDED = {"wrk": "wrk", "nginx": PACKAGES["nginx"], "docker-registry": PACKAGES["docker-registry"]}

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

# A process that takes at most IDLE of a core for QUIET seconds is idle.
IDLE, QUIET = 0.05, 1.0

# Steps and rate at which `backed_memory` is freed, in bytes: as fast as the fastest contestant uses it.
PART = 64 * 1024 * 1024
FREED_PER_SECOND = 512 * 1024 * 1024


def missing() -> list[str]:
    """Return the packages to install before the bench can run."""
    absent = (package for name, package in NEEDED.items() if shutil.which(name, path=SYSTEM_PATH) is None)
    return sorted(absent)


@contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """Pin programs that are started inside to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(pid: int) -> list[int]:
    """Return the process and its descendants: nginx serves from a worker."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            children = (thread / "children").read_text().split()
            found += [each for child in children for each in tree(int(child))]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of the process and its descendants so far."""
    fields = (_stat(each) for each in tree(pid))
    return sum(int(ticks) for each in fields for ticks in each[11:13]) / TICKS


def until_idle(pid: int) -> None:
    """Wait until the process is idle: some servers go on after the client's last byte."""
    before, now = -1.0, cpu_seconds(pid)
    while now - before > QUIET * IDLE:
        time.sleep(QUIET)
        before, now = now, cpu_seconds(pid)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of the process and its descendants."""
    return sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in tree(pid)) * PAGE


def pss_bytes(pid: int) -> int:
    """Return the memory of the process and its descendants; a page that several share is counted once.

    By the kernel's proportional set size: the sum of the resident sizes would count the pages that a worker
    shares with its parent twice.
    """
    return sum(_pss(each) for each in tree(pid))


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel tells no proportional set size of process {pid}")


class Others:
    """Share of the processors that other programs take, besides this process and its descendants."""

    def __init__(self) -> None:
        self._busy, self._ours, self._started = _busy_ticks(), _own_ticks(), time.monotonic()

    def share(self) -> float:
        """Return the share of all cores, 0 to 1, since the start. More than a little makes figures noise."""
        others = (_busy_ticks() - self._busy) - (_own_ticks() - self._ours)
        possible = (time.monotonic() - self._started) * TICKS * (os.cpu_count() or 1)
        return max(0.0, others / possible)


def _busy_ticks() -> int:
    """Return user, nice, system and stolen time of all cores."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return sum(int(fields[index]) for index in (1, 2, 3, 8))


def _own_ticks() -> int:
    """Return the time of this process and its descendants, ended ones included."""
    fields = (_stat(pid) for pid in tree(os.getpid()))
    return sum(int(ticks) for each in fields for ticks in each[11:15])


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def settle() -> None:
    """Write the dirty pages of the run before, so that the disk is idle for the next one."""
    os.sync()
    time.sleep(0.1)


@contextmanager
def backed_memory(size: int) -> Iterator[None]:
    """While the block runs, have `size` bytes of free memory that the host has backed.

    A virtual machine gives memory that has been free for two seconds back to its host. Its first use then
    costs 2 s per GB, as much as all the rest of a cold blob; a contestant that runs just after memory was
    freed, or for a short time, does not pay that. So memory is used here first, and freed gradually.
    """
    parts = [_touched(PART) for _ in range(0, size, PART)]
    over = Event()

    def free() -> None:
        while parts and not over.wait(0 if len(parts) * PART > size / 2 else PART / FREED_PER_SECOND):
            parts.pop().close()

    with ThreadPoolExecutor(1) as pool:
        freeing = pool.submit(free)
        try:
            yield
        finally:
            over.set()
            freeing.result()
    for part in parts:
        part.close()


def _touched(size: int) -> mmap:
    memory = mmap(-1, size)
    for start in range(0, size, PAGE):
        memory[start] = 1
    return memory


def describe() -> dict[str, str]:
    """Return facts that a reader needs to compare: hardware, kernel and versions."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE / 1024**3
    return {
        "cores": f"{len(CORES)} x {cpu[1] if cpu else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "registry-mirror": " ".join(filter(None, (__version__, _commit()))),
        "docker-registry": _version_of("docker-registry", "--version"),
        "nginx": _version_of("nginx", "-v"),
        "wrk": _version_of("wrk", "-v"),
    }


def file_system(folder: Path) -> str:
    """Return type and device of the folder's file system."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE,SOURCE", "--target", str(folder)]
    return " on ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def _version_of(name: str, flag: str) -> str:
    """Return the version that a program reports; wrk exits with 1 after it."""
    path = shutil.which(name, path=SYSTEM_PATH) or name
    done = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout + done.stderr)
    return found[0] if found else "?"


def _commit() -> str:
    """Return the commit that is checked out, "" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
