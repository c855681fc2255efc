"""Streams for the log of a server: a line that cannot be written is dropped and counted.

Standard error may be a pipe that is not read, a terminal that has closed, or a file on a full disk. None of
these may delay a response, fail it, or keep a signal from being handled. Therefore:

- `ThreadedLog`, for a process that serves: a bounded buffer in front of a thread that writes.
- `DirectLog`, for a process that forks and so has no thread: it writes at once what fits, and never waits.

Both count what they drop. As soon as writing works again, a line says how many lines are missing there.
"""

import io
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

# Characters that wait for the writer thread, at most.
BUFFER_CHARACTERS = 2 * 1024 * 1024

# Bytes written at a time to a regular file. Anything else gets what a pipe takes atomically, so that lines of
# several workers do not mix.
FILE_PORTION = 64 * 1024

# Time, in seconds, that the writer thread lets lines gather after it has written all: waking it for each line
# costs 12 µs of processor time.
GATHER_SECONDS = 0.005

# Time, in seconds, between attempts to tell about dropped lines, while no new line makes one.
RETRY_SECONDS = 1.0

# Time, in seconds, that the end of the process waits for the last lines.
CLOSE_SECONDS = 1.0

# Time, in seconds, after which a write of `DirectLog` is given up: other processes filled the pipe first.
WRITE_SECONDS = 0.5


class LogStream(io.TextIOBase):
    """A text stream that never raises OSError. `describe` returns the line about a number of lost lines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor)
        self._unreported = 0  # lines lost since the last line about lost lines
        self._failed = 0  # lines lost because writing failed
        self._torn = False  # the last write ended within a line
        self.describe: Callable[[int], str] = _describe

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._terminal

    def writable(self) -> bool:
        return True

    @property
    def lines_dropped(self) -> int:
        """Number of lines lost so far."""
        return self._failed

    @property
    def is_losing(self) -> bool:
        """True if lines were lost, and writing has not worked since."""
        return self._unreported > 0

    def _deliver(self, text: str) -> None:
        """Write `text`, after a line about the lines that are missing before it."""
        self._report_loss()
        if not self._unreported and self._write_whole(text):
            return
        lines = text.count("\n")
        self._failed += lines
        self._unreported += lines

    def _report_loss(self) -> None:
        if self._unreported and self._write_whole(self.describe(self._unreported)):
            self._unreported = 0

    def _write_whole(self, text: str) -> bool:
        """Write `text`; return False when that fails, perhaps after a part of it."""
        data = memoryview(text.encode(errors="backslashreplace"))
        try:
            if self._torn:
                self._write_some(memoryview(b"\n"))
                self._torn = False
            start = 0
            while start < len(data):
                start += self._write_some(data[start:])
                self._torn = start < len(data)
        except OSError:
            return False
        return True

    def _write_some(self, data: memoryview) -> int:
        """Write the beginning of `data`; return the number of bytes written. Raises OSError."""
        raise NotImplementedError


class DirectLog(LogStream):
    """A stream without a thread: it writes what the descriptor takes at once, and drops the rest."""

    def write(self, text: str) -> int:
        _check(text)
        self._deliver(text)
        return len(text)

    def _write_some(self, data: memoryview) -> int:
        # A pipe that is ready takes PIPE_BUF bytes.
        with _time_limit():
            if not _is_ready(self._descriptor):
                raise BlockingIOError
            return os.write(self._descriptor, data[: select.PIPE_BUF])


class ThreadedLog(LogStream):
    """A stream with a buffer of BUFFER_CHARACTERS and a thread that writes; the first write starts it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        # Reentrant, as the queue is: the garbage collector may run code that logs anywhere.
        self._lock = threading.RLock()
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._portion_size = FILE_PORTION if regular else select.PIPE_BUF
        # Texts, each with the number of lines that were dropped before it; None ends the thread.
        self._queue: SimpleQueue[tuple[int, str] | None] = SimpleQueue()
        self._buffered = self._taken = 0  # characters so far
        self._skipped = 0  # lines dropped since the newest text in the queue
        self._overflowed = 0  # lines dropped so far because the buffer was full
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def lines_dropped(self) -> int:
        return self._failed + self._overflowed

    @property
    def is_losing(self) -> bool:
        return self._unreported + self._skipped > 0

    def write(self, text: str) -> int:
        _check(text)
        length = len(text)
        with self._lock:
            if self._thread is None:
                self._start()
            if self._closed or self._buffered - self._taken + length > BUFFER_CHARACTERS:
                lines = text.count("\n")
                self._skipped += lines
                self._overflowed += lines
                return length
            self._buffered += length
            skipped, self._skipped = self._skipped, 0
        self._queue.put((skipped, text))
        return length

    def end(self, seconds: float) -> bool:
        """Write what is buffered, for at most `seconds`; what comes later is dropped.

        Returns whether the writer thread has ended.
        """
        with self._lock:
            self._closed = True
        if self._thread is None:
            return True
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _start(self) -> None:
        # A daemon, because it may hang in a write. The context has the keys of each line.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="log writer", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        pending: tuple[int, str] | None = None
        while True:
            try:
                item = pending or self._queue.get(timeout=RETRY_SECONDS if self.is_losing else None)
            except Empty:
                self._take_skipped()
                self._report_loss()
                continue
            if item is None:
                return
            text, pending, ended = self._portion(item)
            self._deliver(text)
            self._taken += len(text)
            if ended:
                self._take_skipped()
                self._report_loss()
                return
            if pending is None and self._queue.empty():
                time.sleep(GATHER_SECONDS)

    def _portion(self, first: tuple[int, str]) -> tuple[str, tuple[int, str] | None, bool]:
        """Join the texts that fit into one write.

        Return them, the text that comes next if it was taken from the queue, and whether the end was.
        """
        skipped, text = first
        self._unreported += skipped
        texts, length = [text], len(text)
        with suppress(Empty):
            while length < self._portion_size:
                item = self._queue.get_nowait()
                if item is None:
                    return "".join(texts), None, True
                if item[0] or length + len(item[1]) > self._portion_size:
                    return "".join(texts), item, False
                texts.append(item[1])
                length += len(item[1])
        return "".join(texts), None, False

    def _take_skipped(self) -> None:
        with self._lock:
            self._unreported += self._skipped
            self._skipped = 0

    def _write_some(self, data: memoryview) -> int:
        return os.write(self._descriptor, data)


_current: LogStream | None = None


@contextmanager
def log_stream(stream: LogStream) -> Iterator[None]:
    """Count the lines that `stream` drops as those of this process; at the end, finish the stream."""
    global _current  # noqa: PLW0603  # of this process, as its standard error
    previous, _current = _current, stream
    try:
        yield
    finally:
        if isinstance(stream, ThreadedLog):
            stream.end(CLOSE_SECONDS)
        _current = previous


def lines_dropped() -> int:
    """Return how many lines of this process could not be written."""
    return 0 if _current is None else _current.lines_dropped


def is_losing_lines() -> bool:
    """Return whether lines of this process were dropped, and writing has not worked since."""
    return _current is not None and _current.is_losing


def _describe(lines: int) -> str:
    return f"{lines} lines of the log are missing here: they could not be written\n"


def _check(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"write() argument must be str, not {type(text).__name__}")


def _is_ready(descriptor: int) -> bool:
    """Return whether a write of up to PIPE_BUF bytes ends at once, with success or an error."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise TimeoutError in a system call that waits for longer than WRITE_SECONDS.

    Only the main thread can be interrupted in this way; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, WRITE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise_timeout(_number: int, _frame: Any) -> None:
    raise TimeoutError
