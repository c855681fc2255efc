"""Members of a backup."""

import msgspec
import pytest

from mirror.manage.backup.layout import (
    BackupContents,
    BackupError,
    BackupHead,
    blob_of,
    blob_path,
    parsed,
)
from mirror.oci.digest import Digest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_backup_blob_has_its_digest_in_its_name(algorithm: str) -> None:
    digest = Digest.of(b"x", algorithm)
    assert blob_of(blob_path(digest)) == digest


@pytest.mark.parametrize(
    "name",
    ["", "blobs/sha256/", "blobs/sha256/ab", "blobs/md5/" + "a" * 32, "blobs/sha256/" + "A" * 64, "pins"],
)
def test_backup_blob_of_another_name_is_none(name: str) -> None:
    assert blob_of(name) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 1000, b'{"format":-1}', b"\xff"])
def test_backup_documents_are_checked(data: bytes) -> None:
    for kind in (BackupHead, BackupContents):
        with pytest.raises(BackupError):
            parsed(data, kind)


def test_backup_head_of_a_newer_version_is_read() -> None:
    """Fields that this version does not know do not hide that it is too old."""
    head = BackupHead(format=9, layout=1, version="9", created=1.0)
    assert parsed(msgspec.json.encode({**msgspec.to_builtins(head), "more": 1}), BackupHead) == head
