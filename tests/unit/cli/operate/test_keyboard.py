"""Keys of a terminal."""

import os
import pty
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mirror.cli.operate.keyboard import Keyboard, keyboard


@contextmanager
def piped() -> Iterator[tuple[Keyboard, int]]:
    read, write = os.pipe()
    try:
        yield Keyboard(read), write
    finally:
        os.close(read)
        os.close(write)


def test_keyboard_tells_its_keys_from_others() -> None:
    """Other keys do not end the wait; one of the keys does, also behind others."""
    with piped() as (keys, write):
        os.write(write, b"abc")
        assert not keys.wait(0.01, b"q")
        os.write(write, b"aq")
        assert keys.wait(60, b"q")


def test_keyboard_ends_with_its_terminal() -> None:
    read, write = os.pipe()
    os.close(write)
    try:
        assert Keyboard(read).wait(60, b"q")
    finally:
        os.close(read)


def test_keyboard_of_no_terminal_has_no_keys() -> None:
    assert not Keyboard(None).wait(0.001, b"q")


def test_keyboard_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single keys without echo meanwhile, lines as before afterwards."""
    main, terminal = pty.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(terminal)
        with keyboard() as keys:
            assert not termios.tcgetattr(terminal)[3] & (termios.ICANON | termios.ECHO)
            os.write(main, b"q")
            assert keys.wait(60, b"q")
        assert termios.tcgetattr(terminal) == before
    os.close(main)
