"""What all workers have counted, told by any of them.

Each worker keeps a page of its own, a file in their private folder, and a socket beside it. Whoever is asked
for the sum connects to the sockets of the others, which makes them write their pages, and adds up the pages.
So what was told to anybody is on a page, and a worker that is killed after that takes nothing of it along:
who comes in its place goes on from its page, and no counter ever goes backwards.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mirror.metrics.metrics import COUNTED, Family, added

# How long a worker may take to write its page, in seconds; the sum is then made with what it has there.
PATIENCE = 2.0

# How often pages are written though nobody asks: what a kill may cost, in seconds.
WRITE_SECONDS = 5.0


class MultiprocessMetrics:
    """One worker's page, and the way to the others'. `snapshot`: what this process has counted."""

    def __init__(self, folder: Path, number: int, snapshot: Callable[[], Awaitable[list[Family]]]) -> None:
        self._folder = folder
        self._number = number
        self._snapshot = snapshot
        self._before: list[Family] = []
        self._writing = asyncio.Lock()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Go on from the page of who had the number before. OSError."""
        before = await asyncio.to_thread(_read, self._page(self._number))
        self._before = [each for each in before if each.kind in COUNTED]
        path = self._folder / f"{self._number}.sock"
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._server = await asyncio.start_unix_server(self._asked, path)

    async def write_periodically(self) -> None:
        """Write the page now and then, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> list[Family]:
        """Bring the page up to date; what it says now, even if that cannot be written."""
        async with self._writing:
            page = added(await self._snapshot(), self._before)
            with suppress(OSError):
                await asyncio.to_thread(_write, self._page(self._number), page)
            return page

    async def sum(self) -> list[Family]:
        """What all workers have counted, dead ones too; of what is not counted, what the living have."""
        numbers = await asyncio.to_thread(_numbers, self._folder)
        numbers.discard(self._number)
        answered = await asyncio.gather(*map(self._ask, numbers))
        total = await self.write()
        for number, alive in zip(numbers, answered, strict=True):
            page = await asyncio.to_thread(_read, self._page(number))
            total = added(total, [each for each in page if alive or each.kind in COUNTED])
        return total

    async def close(self) -> None:
        """Write the last of it."""
        if self._server is not None:
            self._server.close()
        await self.write()

    async def _ask(self, number: int) -> bool:
        """Have another worker write its page; whether it lives."""
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._folder / f"{number}.sock")
                try:
                    return await reader.read() != b""
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def _asked(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.write()
        writer.write(b"\n")
        writer.close()

    def _page(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def _numbers(folder: Path) -> set[int]:
    return {int(each.stem) for each in folder.glob("[0-9]*.[js]*") if each.stem.isdecimal()}


def _read(page: Path) -> list[Family]:
    """Empty where there is none yet."""
    try:
        return [Family.parsed(each) for each in json.loads(page.read_bytes())]
    except FileNotFoundError:
        return []


def _write(page: Path, families: Iterable[Family]) -> None:
    """In one step: whoever reads it has the old one or the new one."""
    new = page.with_suffix(".new")
    new.write_text(json.dumps([each.plain() for each in families]))
    os.replace(new, page)
