"""Copying with hashes beside."""

import hashlib
import io
import os
from pathlib import Path

import pytest

from mirror.bundle.pump import BUFFER, BUFFERS, Pump, read_ahead, read_full
from tests.fakes.bundles import random_bytes


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time, as a pipe may."""

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        return super().readinto(buffer[:70_001])


@pytest.mark.parametrize("size", [0, 1, 200_000, BUFFER, 3 * BUFFER + 7, BUFFER * BUFFERS * 2 + 1])
def test_copy_writes_and_hashes_every_byte(size: int) -> None:
    """Two hashers see the same bytes as the writer, in order, however the source gives them."""
    data = random_bytes(size, size)
    out = io.BytesIO()
    hashers = [hashlib.sha256(), hashlib.sha512()]
    with Pump() as pump:
        assert pump.copy(Trickle(data), size, hashers, out.write) == size
    assert out.getvalue() == data
    assert [each.digest() for each in hashers] == [
        hashlib.sha256(data).digest(),
        hashlib.sha512(data).digest(),
    ]


def test_copy_of_a_short_source_says_how_much_there_was() -> None:
    """The caller decides what that means."""
    with Pump() as pump:
        assert pump.copy(io.BytesIO(b"abc"), 10, [], io.BytesIO().write) == 3


def test_copy_takes_no_more_than_the_size() -> None:
    """The rest of the source stays there."""
    source = io.BytesIO(b"abcdef")
    with Pump() as pump:
        pump.copy(source, 4, [], io.BytesIO().write)
    assert source.read() == b"ef"


def test_read_ahead_is_for_files_and_harmless_for_others(tmp_path: Path) -> None:
    """A pipe and bytes in memory have nothing to read ahead."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    reading, writing = os.pipe()
    with path.open("rb") as file, open(reading, "rb") as pipe, open(writing, "wb"):
        for each in (file, pipe, io.BytesIO(b"x")):
            read_ahead(each)
        assert file.read() == b"x"


def test_read_full_fills_the_buffer() -> None:
    """Short reads are joined."""
    data = random_bytes(200_000, 1)
    buffer = memoryview(bytearray(150_000))
    assert read_full(Trickle(data), buffer) == 150_000
    assert buffer == data[:150_000]
