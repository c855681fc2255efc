"""Cost of maintaining a cache of some size: through the store, and by the commands."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from tests.bench.machine import settle
from tests.bench.stock import BLOBS, MONTH, image, put_blobs, put_images
from tests.bench.visits import Add

# Blobs that are inserted and evicted again.
MOVED = 1_000

# A last use, in seconds ago, before those of all other blobs.
LONG_AGO = 10 * MONTH


class Upkeep:
    def __init__(self, folder: Path, size: int, number: int, add: Add) -> None:
        self._cache = folder / "cache"
        self._images = size // BLOBS
        self._number = number
        self._add = add

    def store(self) -> None:
        """Measure blobs that are inserted one by one, used together, and evicted for lack of room."""
        contents = [f"blob {each} of round {self._number}\n".encode() for each in range(MOVED)]
        blobs = {Digest.of(each): each for each in contents}
        size = sum(map(len, contents))
        settle()
        with closing(CacheDirectory(self._cache)) as folder:
            folder.open_connections()
            with self._timed("insert"):
                for digest, data in blobs.items():
                    put_blobs(folder, {digest: data})
            with self._timed("touch"):
                folder.blobs.table.touch(dict.fromkeys(blobs, time.time() - LONG_AGO))
            held = folder.evictor.room().used
        settings = CacheSettings(dir=self._cache, max_size=Amount(held - size), min_free=Amount(0))
        with closing(CacheDirectory(self._cache, settings)) as folder:
            folder.open_connections()
            with self._timed("evict"):
                gone = folder.evictor.evict()
        assert {each.digest for each in gone} == blobs.keys(), f"{len(gone)} evicted"

    @contextmanager
    def _timed(self, row: str) -> Iterator[None]:
        """Measure the block, per blob."""
        started, before = time.perf_counter(), time.process_time()
        yield
        self._add(row, (time.perf_counter() - started) / MOVED * 1e6)
        self._add(f"{row}-cpu", (time.process_time() - before) / MOVED * 1e6)

    def commands(self) -> None:
        """Measure the commands on one image, and on everything."""
        one = image(self._images + self._number)  # not one of those that clients request
        with closing(CacheDirectory(self._cache)) as folder:
            put_images(folder, [one])
        name = f"{one.repository}:{one.tag}"
        most = max(
            self._command("ls-one", "ls", name, "--json"),
            self._command("ls", "ls", "--json"),
            self._command("du", "du", "--json"),
            self._command("gc", "gc", "--json"),
            self._command("verify", "verify", "--quick", "--json"),
            self._command("rm-one", "rm", name, "--yes"),
        )
        self._add("command-rss", most / 1e6)

    def _command(self, row: str, *arguments: str) -> int:
        """Run and measure a command; return its peak memory in bytes."""
        command = [sys.executable, "-m", "mirror", *arguments, "--cache-dir", str(self._cache)]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._add(row, time.perf_counter() - started)
        self._add(f"{row}-cpu", usage.ru_utime + usage.ru_stime)
        assert process.returncode == 0, f"{command} ended with {process.returncode}"
        return usage.ru_maxrss * 1024

    def databases(self) -> None:
        files = [self._cache / side / "cache.db" for side in ("blobs", "books")]
        self._add("databases", sum(each.stat().st_size for each in files) / 1e6)
