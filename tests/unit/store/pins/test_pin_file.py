"""The file of pins: read as written, whole or not at all."""

import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.oci.image_pattern import Pin
from mirror.store.pins.pin_file import PinEntry, PinFile

ONE = PinEntry(Pin.parse("x:1"), 1.0, configured=False)
TWO = PinEntry(Pin.parse("a:* linux/amd64 linux/arm64"), 2.5, configured=False)
OURS = PinEntry(Pin.parse(f"z@sha256:{'0' * 64}"), 3.0, configured=True)


def test_pin_file_is_read_as_written(tmp_path: Path) -> None:
    """The order is the file's own; no other file is left, and no other user can read it."""
    file = PinFile(tmp_path / "pins")
    assert file.read() == []
    file.write([ONE, TWO, OURS])
    assert file.read() == [OURS, TWO, ONE]
    assert os.listdir(tmp_path) == ["pins"]
    assert (tmp_path / "pins").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"pattern": "x", "platforms": [], "since": 1, "from": "command"}',
        "\0\udcff",
    ],
)
def test_pin_file_skips_an_unreadable_line(tmp_path: Path, line: str) -> None:
    """The line costs no other one, and is logged."""
    file = PinFile(tmp_path / "pins")
    file.write([ONE])
    with (tmp_path / "pins").open("ab") as raw:
        raw.write(line.encode(errors="surrogateescape") + b"\n")
    file_of_two = (tmp_path / "pins").read_bytes() + json.dumps({"pattern": "docker.io/library/y:2"}).encode()
    (tmp_path / "pins").write_bytes(file_of_two)
    with capture_logs() as logs:
        assert file.read() == [ONE]
    assert len(logs) == 2


def test_pin_file_stays_if_it_cannot_be_replaced(tmp_path: Path) -> None:
    """The new file is removed: it would take room on a full disk."""
    file = PinFile(tmp_path / "pins")
    (tmp_path / "pins").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        file.write([ONE])
    assert os.listdir(tmp_path) == ["pins"]
    with pytest.raises(OSError, match="Is a directory"):
        file.read()
