"""Questions from one worker to the others, over Unix sockets in their private folder.

    <folder>/<number>.ask      the socket of a worker

A connection carries one question, a line of JSON, and the answer, JSON to the end of the stream.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from mirror.util.log import get_logger

log = get_logger(__name__)

# Time, in seconds, that another worker has for its answer; then it is left out.
ANSWER_SECONDS = 1.0

# Longest question and answer, in bytes.
MOST_QUESTION, MOST_ANSWER = 64 * 1024, 16 * 1024 * 1024

SUFFIX = ".ask"


class WorkerExchange:
    """The questions of one worker, and its answers. `answer`: returns the answer to a question."""

    def __init__(self, folder: Path, number: int, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._folder = folder
        self._number = number
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to answer. Raises OSError."""
        path = self._folder / f"{self._number}{SUFFIX}"
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path, limit=MOST_QUESTION)

    async def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
            path = self._folder / f"{self._number}{SUFFIX}"
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def ask_others(self, question: bytes) -> list[bytes]:
        """Return the answers of the other workers; none of one that ends, or does not answer in time."""
        others = await asyncio.to_thread(self._others)
        answers = await asyncio.gather(*(self._ask(each, question) for each in others))
        return [each for each in answers if each]

    def _others(self) -> list[Path]:
        own = f"{self._number}{SUFFIX}"
        return [each for each in self._folder.glob(f"*{SUFFIX}") if each.name != own]

    async def _ask(self, path: Path, question: bytes) -> bytes:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    writer.write(question + b"\n")
                    return await _all(reader)
                finally:
                    writer.close()
        return b""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                question = await reader.readuntil(b"\n")
                writer.write(await self._answer(question))
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            log.debug("question of another worker not answered", reason=repr(error))
        finally:
            writer.close()


async def _all(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the end, if that is not more than MOST_ANSWER."""
    parts, size = [], 0
    while part := await reader.read(MOST_QUESTION):
        size += len(part)
        if size > MOST_ANSWER:
            return b""
        parts.append(part)
    return b"".join(parts)
