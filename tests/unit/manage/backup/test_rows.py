"""Rows of the index in a backup."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.manage.backup.layout import LONGEST_LINE, BackupError
from mirror.manage.backup.rows import hosted_in, lines_of, linked_in, put_rows, read_rows, row_of
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory

DIGEST = Digest.of(b"x")

ROWS = {
    "hosted:office": "",
    "held:office": "7",
    "held:office/app": "7",
    f"link:office/app@{DIGEST}": "{}",
    "tag:office/app:1": "{}",
    f"referrer:office/app@{DIGEST}@{DIGEST}": "x" * 100_000,  # has a file of its own
    f"seen:docker.io/library/alpine@{DIGEST}": "1.5",
}
OTHERS = {
    f"link:docker.io/library/alpine@{DIGEST}": "{}",
    f"link:office.example/app@{DIGEST}": "{}",
    "usage:2026-01-01:x": "1",
    "hostess:x": "",
}


def test_backup_rows_are_those_of_hosted_registries(tmp_path: Path) -> None:
    """Rows of upstreams are not among them; written to a new index they are the same."""
    for name, rows in (("first", {**ROWS, **OTHERS}), ("second", ROWS)):
        folder = CacheDirectory(tmp_path / name)
        put_rows(folder, rows.items())
        assert read_rows(folder) == ROWS
        folder.close()
    assert hosted_in(ROWS) == ["office"]
    assert linked_in(ROWS) == {DIGEST}


def test_backup_rows_survive_their_lines() -> None:
    rows = {**ROWS, "tag:office/\ud800:\n": "\n\ud800"}
    assert dict(row_of(each, ["office"]) for each in lines_of(rows)) == rows


@pytest.mark.parametrize(
    "line",
    [
        *(json.dumps([key, value]).encode() for key, value in OTHERS.items()),
        b"",
        b"[]",
        b'["link:office/app"]',
        b'["link:office/app", 1]',
        b'["link:office", "x"]',
        b'["seen:office", "x"]',
        b'["hosted:office/app", "x"]',
        b"[" * 100_000,
    ],
)
def test_backup_row_of_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(BackupError):
        row_of(line, ["office"])


def test_backup_row_that_is_too_long_is_refused() -> None:
    with pytest.raises(BackupError):
        row_of(b'["link:office/app", "' + b"x" * LONGEST_LINE + b'"]', ["office"])


@given(st.binary(max_size=200) | st.text(max_size=50).map(lambda text: json.dumps([text, text]).encode()))
def test_backup_row_is_a_row_or_an_error(line: bytes) -> None:
    """No other error comes of any line, and no row of another registry."""
    try:
        key, value = row_of(line, ["office"])
    except BackupError:
        return
    assert key.partition(":")[2].startswith(("office", "seen")) or key.startswith("seen:")
    assert isinstance(value, str)
