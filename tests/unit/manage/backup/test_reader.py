"""The reader of backups, given anything."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.bundle.tar_format import END, header, padding
from mirror.manage.backup.layout import CONTENTS, HEAD, BackupError
from mirror.manage.backup.reader import BackupReader, DiscardedMembers

GOOD_HEAD = b'{"format":1,"layout":1,"version":"1","created":1}'


def tar(*members: tuple[str, bytes]) -> bytes:
    return (
        b"".join(header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members) + END
    )


def read(data: bytes) -> None:
    BackupReader(io.BytesIO(data)).read(DiscardedMembers())


@pytest.mark.parametrize(
    "members",
    [
        (),
        ((HEAD, GOOD_HEAD),),
        ((HEAD, b"{}"),),
        (("pins", b""), (HEAD, GOOD_HEAD)),
        ((HEAD, GOOD_HEAD), (HEAD, GOOD_HEAD)),
        ((HEAD, GOOD_HEAD), ("pins", b""), ("pins", b"")),
        ((HEAD, GOOD_HEAD), ("books/cache.db", b"")),
        ((HEAD, GOOD_HEAD), ("blobs/sha256/" + "a" * 64, b"x")),
        ((HEAD, GOOD_HEAD), (CONTENTS, b"{}")),
        ((HEAD, b" " * 2_000_000),),
    ],
)
def test_backup_reader_refuses_what_is_no_backup(members: tuple[tuple[str, bytes], ...]) -> None:
    with pytest.raises(BackupError):
        read(tar(*members))


@given(st.binary(max_size=3000), st.integers(0, 2000))
def test_backup_reader_of_any_bytes_raises_its_own_error(junk: bytes, place: int) -> None:
    good = tar((HEAD, GOOD_HEAD), ("pins", b"x"), ("blobs/sha256/" + "a" * 64, b"x"))
    for data in (junk, good[:place] + junk + good[place + len(junk) :]):
        with pytest.raises(BackupError):
            read(data)
