"""The file of the audit log: rotated, removed, full; no line is waited for, and no loss is silent."""

import json
import os
from pathlib import Path

import pytest

from mirror.web.audit.audit_file import LOOK_SECONDS, AuditFile


class Clock:
    """A clock that goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def written(file: AuditFile, text: str) -> None:
    """Write a line, by the thread's own code and in this thread."""
    file._deliver(f"{text}\n")


def test_audit_file_appends_and_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text("before\n")
    file = AuditFile(path)
    file.write("line\n")
    file.close_file(10)
    assert path.read_text() == "before\nline\n"
    os.unlink(path)
    AuditFile(path).close_file(1)
    assert path.stat().st_mode & 0o137 == 0


def test_audit_file_moved_by_logrotate_is_opened_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "audit.log", Clock()
    file = AuditFile(path, clock)
    written(file, "one")
    path.rename(tmp_path / "audit.log.1")
    written(file, "two")
    clock.now += LOOK_SECONDS
    written(file, "three")
    file.close_file(1)
    assert (tmp_path / "audit.log.1").read_text() == "one\ntwo\n"
    assert path.read_text() == "three\n"
    assert file.lines_dropped == 0


def test_audit_file_replaced_by_another_one_is_left(tmp_path: Path) -> None:
    """A new file is there before a line is written, by logrotate's `create`."""
    path, clock = tmp_path / "audit.log", Clock()
    file = AuditFile(path, clock)
    path.rename(tmp_path / "audit.log.1")
    path.touch()
    clock.now += LOOK_SECONDS
    written(file, "one")
    file.close_file(1)
    assert path.read_text() == "one\n"


def test_audit_file_that_cannot_be_opened_again_stays_in_use(tmp_path: Path) -> None:
    folder, clock = tmp_path / "logs", Clock()
    folder.mkdir()
    file = AuditFile(folder / "audit.log", clock)
    folder.rename(tmp_path / "moved")
    clock.now += LOOK_SECONDS
    written(file, "one")
    file.close_file(1)
    assert (tmp_path / "moved" / "audit.log").read_text() == "one\n"


def test_audit_lines_that_no_file_takes_are_counted_and_told(tmp_path: Path) -> None:
    folder, clock = tmp_path / "logs", Clock()
    folder.mkdir()
    file = AuditFile(folder / "audit.log", clock)
    os.unlink(folder / "audit.log")
    folder.rmdir()
    clock.now += LOOK_SECONDS
    written(file, "one")
    assert file.lines_dropped == 1
    folder.mkdir()
    clock.now += LOOK_SECONDS
    written(file, "two")
    file.close_file(1)
    told, line = (folder / "audit.log").read_text().splitlines()
    assert json.loads(told)["lines"] == 1
    assert line == "two"


def test_audit_file_is_no_link_and_names_itself_in_errors(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        AuditFile(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
