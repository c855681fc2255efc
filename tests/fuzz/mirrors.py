"""Mirrors under test: real processes with workers, one for each parser of aiohttp."""

import json
import os
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.processes import PATIENCE, Process, free_port
from tests.fuzz import odd
from tests.fuzz.content import GOOD, ODD
from tests.leftovers import children

# Environment of the process, by parser. The second is aiohttp's, written in Python.
PARSERS = {"c": {}, "python": {"AIOHTTP_NO_EXTENSIONS": "1"}}

CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
workers = {workers}
header_timeout = "{header_timeout}"
shutdown_timeout = "2s"
[cache]
max_size = "96MiB"
min_free = "0"
memory = "4MiB"
[log]
level = "info"
format = "json"
"""
# Time limits suit a machine that is busy with other things: no right answer takes that long.
HEADER_TIMEOUT = "30s"
UPSTREAM = """
[[upstream]]
name = "{name}"
url = "{url}/{name}"
attempts = {attempts}
read_timeout = "{timeout}"
"""

# Log lines that no request and no upstream may cause.
FORBIDDEN = re.compile(
    rb'Traceback \(most recent call last\)|"level": "(?:error|critical)"|"response not remembered"|Warning: '
)
# Errors that a broken upstream causes: an operator must learn of them.
EARNED = b'"event": "source sent wrong bytes, not used for a while"'

# Time, in seconds, after which aiohttp's client has closed an idle connection (15), and a little more.
IDLE_SECONDS = 18

# Size of the log, in bytes, at which it is emptied.
LOG_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Resources:
    """Holdings of the processes of a mirror: memory of their own in bytes, descriptors, threads, tasks."""

    memory: int
    descriptors: int
    threads: int
    tasks: int

    def __str__(self) -> str:
        rest = f"{self.descriptors} descriptors, {self.threads} threads, {self.tasks} tasks"
        return f"{self.memory / 2**20:.0f} MiB, {rest}"


class MirrorUnderTest(Process):
    """`registry-mirror serve` in front of the origin. Its methods block."""

    def __init__(self, folder: Path, origin: str, parser: str, workers: int, bounds: str = "default") -> None:
        """`bounds`: those of its containers (`tests.fuzz.watched`)."""
        self._watch = folder / "watch"
        self._watch.mkdir(parents=True)
        self.parser = parser
        self.port = free_port()
        self.workers = workers
        self.bounds = bounds
        self._scanned = 0
        upstreams = [UPSTREAM.format(name=GOOD, url=origin, attempts=3, timeout="30s")]
        for number in range(odd.COUNT):
            name, attempts = ODD.format(number), 1 + (number % 4 == 0)
            upstreams.append(UPSTREAM.format(name=name, url=origin, attempts=attempts, timeout="1s"))
        config = folder / "mirror.toml"
        settings = CONFIG.format(port=self.port, workers=workers, header_timeout=HEADER_TIMEOUT)
        config.write_text(settings + "".join(upstreams))
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "tests.fuzz.watched",
            self._watch,
            bounds,
            "serve",
            "--config",
            config,
            "--cache-dir",
            folder / "cache",
        ]
        super().__init__(command, folder / "log", self._is_ready, PARSERS[parser])

    def _is_ready(self) -> bool:
        with suppress(OSError):
            return bool(self._get("/readyz"))
        return False

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
            text: bytes = answer.read()
        return text.decode()

    def forbidden_lines(self) -> list[str]:
        """Return the lines written since the last call that must not be in a log; and empty a long log."""
        with self.log.open("rb") as log:
            log.seek(self._scanned)
            text = log.read()
        self._scanned += len(text)
        found = list(_forbidden(text))
        if self._scanned > LOG_BYTES:
            os.truncate(self.log, 0)
            self._scanned = 0
        return [each.decode(errors="replace") for each in found]

    def memory(self) -> int:
        """Measure the memory of its own, in bytes, of the parent and the workers."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in (self.pid, *children(self.pid))]
        return sum(_field(each, "RssAnon") for each in statuses) * 1024

    def live(self) -> int:
        """Return the bytes that the workers have in use, after a collection."""
        return sum(each["live"] for each in self.told("live"))

    def told(self, question: str) -> list[dict[str, Any]]:
        """Return what each worker answers (`tests.fuzz.watched`)."""
        return [_told(self._watch / str(pid), question) for pid in children(self.pid)]

    def resources(self) -> Resources:
        """Measure the parent and the workers."""
        pids = [self.pid, *children(self.pid)]
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        return Resources(
            memory=self.memory(),
            descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
            threads=sum(_field(each, "Threads") for each in statuses),
            tasks=int(self._metric("registry_mirror_tasks")),
        )

    def at_rest(self) -> Resources:
        """Measure when nothing runs any more and idle connections to upstreams are closed."""
        end = time.monotonic() + PATIENCE
        same, last = 0, self.resources()
        while same < IDLE_SECONDS and time.monotonic() < end:
            time.sleep(1)
            now = self.resources()
            calm = now.tasks <= 8 * self.workers and now.descriptors == last.descriptors
            same, last = same + 1 if calm else 0, now
        return last

    def worker_pids(self) -> set[int]:
        return set(children(self.pid))

    def _metric(self, name: str) -> float:
        rows = [
            line for line in self._get("/metrics").splitlines() if line.startswith((f"{name} ", f"{name}{{"))
        ]
        return sum(float(row.rpartition(" ")[2]) for row in rows)


def _told(path: Path, question: str) -> dict[str, Any]:
    """Return what a worker answers at its socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        connection.sendall(f"{question}\n".encode())
        with connection.makefile("rb") as file:
            told: dict[str, Any] = json.loads(file.read())
    return told


def _field(status: str, name: str) -> int:
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def _forbidden(text: bytes) -> Iterator[bytes]:
    """Yield the first forbidden lines, with what follows a traceback."""
    count = 0
    for match in FORBIDDEN.finditer(text):
        start, stop = text.rfind(b"\n", 0, match.start()) + 1, text.find(b"\n", match.end())
        if EARNED not in text[start:stop] and count < 3:
            count += 1
            yield text[start : max(stop, start + (3_000 if match[0].startswith(b"Trace") else 0))]
