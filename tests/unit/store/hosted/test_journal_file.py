"""Files of the journal of pushes: what was written is read, up to the first record that is not whole."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.store.hosted.journal_file import HEAD, JournalFile, record, records
from mirror.store.lock import lock_if_unread

CONTENTS = st.lists(st.binary(max_size=50), max_size=5)


@given(CONTENTS, st.binary(max_size=200))
def test_journal_records_are_read_back(contents: list[bytes], behind: bytes) -> None:
    """Zeros end the records, and so does any other text."""
    data = b"".join(map(record, contents))
    assert list(records(data + bytes(100))) == contents
    assert list(records(data + behind))[: len(contents)] == contents


@given(CONTENTS.filter(len), st.data())
def test_journal_record_that_is_torn_ends_the_file(contents: list[bytes], data: st.DataObject) -> None:
    """A power failure may leave any part of the last record."""
    whole, last = b"".join(map(record, contents[:-1])), record(contents[-1])
    torn = bytearray(last)
    torn[data.draw(st.integers(0, len(last) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert list(records(whole + bytes(torn))) == contents[:-1]
    cut = data.draw(st.integers(0, len(last) - 1))
    assert list(records(whole + last[:cut])) == contents[:-1]


def test_journal_file_has_its_size_from_the_start(tmp_path: Path) -> None:
    """A record without room is left to the next file; the writer's lock lasts until the file is closed."""
    file = JournalFile.create(tmp_path, 100)
    (path,) = tmp_path.iterdir()
    assert file.append(record(b"x" * (50 - HEAD.size)))
    assert not file.append(record(b"y" * 50))
    assert path.stat().st_size == 100
    assert list(records(path.read_bytes())) == [b"x" * (50 - HEAD.size)]
    with lock_if_unread(path) as unwritten:
        assert unwritten is False
    file.close()
    with lock_if_unread(path) as unwritten:
        assert unwritten


def test_journal_file_that_cannot_be_made_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No half of a file is left on a full disk."""

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no room"):
            JournalFile.create(tmp_path, 100)
    assert list(tmp_path.iterdir()) == []
