"""Terminals that close."""

import os
import pty
import signal
from collections.abc import Iterator

import pytest

from mirror.system import terminal
from mirror.system.terminal import Terminal


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A terminal and its controller, the terminal being a standard descriptor; a test may take one out."""
    controller, standard = pty.openpty()
    monkeypatch.setattr(terminal, "STANDARD", (standard,))
    open_ends = [standard, controller]
    yield open_ends
    for each in open_ends:
        os.close(each)


def test_terminal_that_closes_has_hung_up(ends: list[int]) -> None:
    """An open terminal has not hung up, with input or without."""
    watched = Terminal()
    assert not watched.has_hung_up()
    os.write(ends[1], b"input\n")
    assert not watched.has_hung_up()
    os.close(ends.pop())
    assert watched.has_hung_up()


def test_terminal_of_a_process_under_nohup_is_not_watched(ends: list[int]) -> None:
    """The process is meant to outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        watched = Terminal()
    finally:
        signal.signal(signal.SIGHUP, before)
    os.close(ends.pop())
    assert not watched.has_hung_up()


def test_terminal_that_is_a_pipe_never_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's standard error: SIGHUP is a reload, whatever becomes of the reader."""
    reading, writing = os.pipe()
    monkeypatch.setattr(terminal, "STANDARD", (writing,))
    watched = Terminal()
    os.close(reading)
    assert not watched.has_hung_up()
    os.close(writing)
