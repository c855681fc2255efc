"""Answers that are sent from memory, while their clients take them: together they have a bound.

A client that takes nothing of a long list, or of a long manifest, keeps it in memory: the bytes, and a copy
of the piece that the transport has. The answer that began first is ended where there would be too many; a
client that reads has its answer long before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from mirror.util.log import get_logger
from mirror.util.throttle import Throttle
from mirror.web.connections.aiohttp_internals import is_body_due

log = get_logger(__name__)

# Bytes from which an answer counts: most manifests are shorter, and the kernel takes them at once.
LARGE = 128 * 1024

# The most bytes of such answers in one process.
MOST = 128 * 1024 * 1024

# Bytes that the transport gets at a time. It copies what the client's connection does not take at once.
PIECE = 256 * 1024

# Ended answers are logged once in this many seconds.
REPEAT_SECONDS = 60.0


class LargeResponse(web.Response):
    """Response whose body goes to the transport piece by piece, the next one when the client takes more."""

    async def write_eof(self, data: bytes = b"") -> None:
        if isinstance(self.body, bytes) and is_body_due(self):
            body = memoryview(self.body)
            for start in range(0, len(body), PIECE):
                await self.write(body[start : start + PIECE])
        await web.StreamResponse.write_eof(self, data)


class LargeAnswers:
    """The answers of one process that are being sent from memory."""

    def __init__(self) -> None:
        self._held: dict[object, tuple[int, Callable[[], object]]] = {}
        self._bytes = 0
        self._throttle = Throttle(REPEAT_SECONDS)

    @contextmanager
    def holding(self, size: int, end: Callable[[], object]) -> Iterator[None]:
        """Count an answer of `size` bytes; `end` ends its connection."""
        if size < LARGE:
            yield
            return
        key = object()
        self._held[key], self._bytes = (size, end), self._bytes + size
        try:
            while self._bytes > MOST and len(self._held) > 1:
                self._end_first()
            yield
        finally:
            self._forget(key)

    def _end_first(self) -> None:
        key = next(iter(self._held))
        _, end = self._held[key]
        self._forget(key)
        end()
        if count := self._throttle.count():
            log.warning("clients took too little of long answers, and were ended", answers=count)

    def _forget(self, key: object) -> None:
        if (found := self._held.pop(key, None)) is not None:
            self._bytes -= found[0]
