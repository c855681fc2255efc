"""Metrics of all workers, served by any of them.

Each worker has a snapshot file in a private folder and a Unix socket beside the file. A worker that is
scraped connects to the sockets of the others, which makes them write their snapshots, and merges the
snapshots. Every value that a scrape has returned is therefore in a snapshot: a killed worker loses nothing
that was reported, its successor continues from the snapshot, and no counter ever goes backwards.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mirror.metrics.families import CUMULATIVE, Family, merge

# Seconds that a worker may take to write its snapshot; after that the sum uses the previous snapshot.
REPLY_TIMEOUT = 2.0

# Seconds between two snapshots without a scrape: the most that a kill can lose.
WRITE_SECONDS = 5.0


class MultiprocessMetrics:
    """One worker's snapshot file, and access to those of the others. `collect` returns our own metrics."""

    def __init__(self, folder: Path, number: int, collect: Callable[[], Awaitable[list[Family]]]) -> None:
        self._folder = folder
        self._number = number
        self._collect = collect
        self._predecessors: list[Family] = []
        self._write_lock = asyncio.Lock()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Continue from the snapshot of the previous worker with this number. Raises OSError."""
        previous = await asyncio.to_thread(_read, self._snapshot_file(self._number))
        self._predecessors = [each for each in previous if each.kind in CUMULATIVE]
        path = self._folder / f"{self._number}.sock"
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve_request, path)

    async def write_periodically(self) -> None:
        """Write the snapshot every WRITE_SECONDS until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> list[Family]:
        """Write the snapshot and return its content, even if the file cannot be written."""
        async with self._write_lock:
            snapshot = merge(await self._collect(), self._predecessors)
            with suppress(OSError):
                await asyncio.to_thread(_write, self._snapshot_file(self._number), snapshot)
            return snapshot

    async def sum(self) -> list[Family]:
        """Return the counters of all workers, including dead ones, and the gauges of live ones."""
        numbers = await asyncio.to_thread(_numbers, self._folder)
        numbers.discard(self._number)
        answered = await asyncio.gather(*map(self._request_snapshot, numbers))
        total = await self.write()
        for number, alive in zip(numbers, answered, strict=True):
            snapshot = await asyncio.to_thread(_read, self._snapshot_file(number))
            total = merge(total, [each for each in snapshot if alive or each.kind in CUMULATIVE])
        return total

    async def close(self) -> None:
        """Write the last snapshot."""
        if self._server is not None:
            self._server.close()
        await self.write()

    async def _request_snapshot(self, number: int) -> bool:
        """Make another worker write its snapshot. Return whether the worker is alive."""
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(self._folder / f"{number}.sock")
                try:
                    return await reader.read() != b""
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def _serve_request(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.write()
        writer.write(b"\n")
        writer.close()

    def _snapshot_file(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def _numbers(folder: Path) -> set[int]:
    return {int(each.stem) for each in folder.glob("[0-9]*.[js]*") if each.stem.isdecimal()}


def _read(path: Path) -> list[Family]:
    """Return the families of a snapshot file, or none if there is no file yet."""
    try:
        return [Family.from_json(each) for each in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return []


def _write(path: Path, families: Iterable[Family]) -> None:
    """Write a snapshot file atomically: a reader gets the old or the new content."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps([each.to_json() for each in families]))
    os.replace(new, path)
