"""Streams of the log; tests/contract/test_bounds_log.py has whole mirrors with logs that nothing reads."""

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from mirror.util import log_writer
from mirror.util.log_writer import (
    DirectLog,
    LogStream,
    ThreadedLog,
    is_losing_lines,
    lines_dropped,
    log_stream,
)


class Pipe:
    """A pipe of the smallest size, two times PIPE_BUF at most."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def fill(self) -> int:
        """Fill the pipe; return the number of bytes."""
        os.set_blocking(self.writing, False)
        total = 0
        try:
            while True:
                total += os.write(self.writing, b"-" * select.PIPE_BUF)
        except BlockingIOError:
            os.set_blocking(self.writing, True)
            return total

    def read(self, length: int) -> bytes:
        """Read exactly `length` bytes."""
        data = b""
        while len(data) < length:
            part = os.read(self.reading, length - len(data))
            assert part
            data += part
        return data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    os.close(opened.reading)
    os.close(opened.writing)


def notice(lines: int) -> str:
    return f"{lines} missing\n"


@pytest.mark.parametrize("kind", [DirectLog, ThreadedLog])
def test_log_stream_writes_in_order(kind: type[LogStream], pipe: Pipe) -> None:
    """All text arrives, as it was written, also characters outside of ASCII and lone surrogates."""
    stream = kind(pipe.writing)
    texts = [f"line {number} ä \udc80\n" for number in range(100)]
    with log_stream(stream):
        for each in texts:
            assert stream.write(each) == len(each)
    expected = "".join(texts).encode(errors="backslashreplace")
    assert pipe.read(len(expected)) == expected
    assert (lines_dropped(), is_losing_lines()) == (0, False)


@pytest.mark.parametrize("kind", [DirectLog, ThreadedLog])
def test_log_stream_refuses_bytes(kind: type[LogStream], pipe: Pipe) -> None:
    """Text streams do; click tells them from binary streams by that."""
    with pytest.raises(TypeError, match="must be str, not bytes"):
        kind(pipe.writing).write(b"")  # type: ignore[arg-type]


def test_direct_log_drops_and_tells(pipe: Pipe) -> None:
    """A full pipe costs the line; when it has room again, a line tells before the next one."""
    stream = DirectLog(pipe.writing)
    stream.describe = notice
    filled = pipe.fill()
    with log_stream(stream):
        stream.write("lost\n")
        stream.write("lost\nlost too\n")
        assert (lines_dropped(), is_losing_lines()) == (3, True)
        pipe.read(filled)
        stream.write("there\n")
        assert (lines_dropped(), is_losing_lines()) == (3, False)
    assert pipe.read(16) == b"3 missing\nthere\n"


def test_direct_log_gives_up_a_write_that_waits(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe is ready and then is not, because another process was faster: the alarm ends the write."""
    monkeypatch.setattr(log_writer, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(log_writer, "_is_ready", lambda _descriptor: True)
    stream = DirectLog(pipe.writing)
    pipe.fill()
    before = signal.getsignal(signal.SIGALRM)
    stream.write("lost\n")
    assert stream.lines_dropped == 1
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_threaded_log_is_bounded_and_tells(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines beyond the buffer are dropped, and a line tells where, with their number."""
    monkeypatch.setattr(log_writer, "BUFFER_CHARACTERS", 4000)
    stream = ThreadedLog(pipe.writing)
    stream.describe = notice
    filled = pipe.fill()
    line = "x" * 99 + "\n"
    with log_stream(stream):
        for _ in range(1000):
            stream.write(line)
        assert is_losing_lines()
        assert lines_dropped() == 960
        pipe.read(filled)
        assert pipe.read(4012) == line.encode() * 40 + b"960 missing\n"


def test_threaded_log_tells_without_a_new_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that failed is told about as soon as one works, though nothing else is logged."""
    monkeypatch.setattr(log_writer, "RETRY_SECONDS", 0.01)
    reading, writing = os.pipe()
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), writing)
    told = threading.Event()
    stream = ThreadedLog(writing)

    def describe(lines: int) -> str:
        told.set()
        return notice(lines)

    stream.describe = describe
    os.close(reading)
    reading, other = os.pipe()
    with log_stream(stream):
        stream.write("lost\n")
        assert told.wait(10)  # without success so far
        os.dup2(other, writing)
        assert os.read(reading, 100) == b"1 missing\n"
    for each in (reading, writing, other):
        os.close(each)


def test_threaded_log_ends_though_it_hangs(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for CLOSE_SECONDS at most; later lines are dropped and counted."""
    monkeypatch.setattr(log_writer, "CLOSE_SECONDS", 0.01)
    pipe.fill()
    stream = ThreadedLog(pipe.writing)
    with log_stream(stream):
        stream.write("waits\n")
    stream.write("late\n")
    assert stream.lines_dropped == 1
    pipe.read(select.PIPE_BUF)  # the thread goes on and ends
