"""Questions from one worker to the others, over Unix sockets in their private folder.

    <folder>/<number>.ask      the socket of a worker

A connection carries any number of questions, each with its answer: four bytes of length, then as many bytes.
It is closed after some seconds without a question: nothing is open while nobody looks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from mirror.util.log import get_logger

log = get_logger(__name__)

# Time, in seconds, that another worker has for its answer; then it is left out.
ANSWER_SECONDS = 1.0

# Time, in seconds, for which a connection waits for its next question, and the list of sockets holds.
IDLE_SECONDS, LISTED_SECONDS = 5.0, 2.0

# Longest question and answer, in bytes.
MOST_QUESTION, MOST_ANSWER = 64 * 1024, 16 * 1024 * 1024

SUFFIX = ".ask"

LENGTH_BYTES = 4


class _Line(Struct):
    """A connection to another worker. `expiry`: closes it while nothing is asked."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    expiry: asyncio.TimerHandle | None = None


class WorkerExchange:
    """The questions of one worker, and its answers. `answer`: returns the answer to a question."""

    def __init__(self, folder: Path, number: int, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._folder = folder
        self._number = number
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._asking: set[asyncio.StreamWriter] = set()  # connections of the other workers
        self._lines: dict[Path, _Line] = {}  # to the others, while no question is on them
        self._others: tuple[float, list[Path]] = (0.0, [])

    async def open(self) -> None:
        """Begin to answer. Raises OSError."""
        path = self._folder / f"{self._number}{SUFFIX}"
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path, limit=MOST_QUESTION)

    async def close(self) -> None:
        """Stop answering, and asking."""
        if self._server is not None:
            self._server.close()
            path = self._folder / f"{self._number}{SUFFIX}"
            await asyncio.to_thread(path.unlink, missing_ok=True)
        for path in list(self._lines):
            self._hang_up(path)
        for writer in list(self._asking):
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def ask_others(self, question: bytes) -> list[bytes]:
        """Return the answers of the other workers; none of one that ends, or does not answer in time."""
        answers = await asyncio.gather(*(self._ask(each, question) for each in await self._listed()))
        return [each for each in answers if each]

    async def _listed(self) -> list[Path]:
        """Return the sockets of the others, looked up every LISTED_SECONDS."""
        looked, found = self._others
        if not found or time.monotonic() - looked > LISTED_SECONDS:
            found = await asyncio.to_thread(self._look)
            self._others = time.monotonic(), found
        return found

    def _look(self) -> list[Path]:
        own = f"{self._number}{SUFFIX}"
        return [each for each in self._folder.glob(f"*{SUFFIX}") if each.name != own]

    async def _ask(self, path: Path, question: bytes) -> bytes:
        line = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if (line := self._take(path)) is not None:
                    with suppress(OSError, asyncio.IncompleteReadError):
                        return await self._talk(path, line, question)
                    line.writer.close()  # that worker has closed it, or was replaced
                line = _Line(*await asyncio.open_unix_connection(path))
                return await self._talk(path, line, question)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return b""
        finally:
            if line is not None and self._lines.get(path) is not line:
                line.writer.close()

    async def _talk(self, path: Path, line: _Line, question: bytes) -> bytes:
        """Return the answer, b"" for one that is too long. Raises OSError, IncompleteReadError."""
        line.writer.write(_framed(question))
        length = int.from_bytes(await line.reader.readexactly(LENGTH_BYTES))
        if length > MOST_ANSWER:
            return b""
        answer = await line.reader.readexactly(length)
        self._keep(path, line)
        return answer

    def _take(self, path: Path) -> _Line | None:
        line = self._lines.pop(path, None)
        if line is not None and line.expiry is not None:
            line.expiry.cancel()
        return line

    def _keep(self, path: Path, line: _Line) -> None:
        """Keep a connection for the next question; another question may have kept one before."""
        if path not in self._lines:
            line.expiry = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._hang_up, path)
            self._lines[path] = line

    def _hang_up(self, path: Path) -> None:
        if (line := self._take(path)) is not None:
            line.writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._asking.add(writer)
        try:
            while True:
                head = await reader.readexactly(LENGTH_BYTES)
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._answer_one(head, reader, writer)
        except (OSError, TimeoutError, ValueError) as error:
            log.debug("question of another worker not answered", reason=repr(error))
        except asyncio.IncompleteReadError:
            pass  # nothing more is asked
        finally:
            self._asking.discard(writer)
            writer.close()

    async def _answer_one(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        length = int.from_bytes(head)
        if length > MOST_QUESTION:
            raise ValueError(f"a question of {length} bytes")
        writer.write(_framed(await self._answer(await reader.readexactly(length))))
        await writer.drain()


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(LENGTH_BYTES) + data
