"""The plan and the archive of an empty folder."""

import io
import os
from pathlib import Path

import pytest

from mirror.manage.backup.layout import BackupError
from mirror.manage.backup.restore import verify
from mirror.manage.backup.writer import plan_backup, write_backup
from mirror.manage.carry.export import OutputFolder
from mirror.store.cache_dir import CacheDirectory
from mirror.util.callbacks import ignore


def test_backup_of_an_empty_folder(tmp_path: Path) -> None:
    """There is nothing, and the archive is one."""
    folder, out = CacheDirectory(tmp_path), io.BytesIO()
    plan = plan_backup(folder)
    write_backup(folder, out, "-", ignore)
    folder.close()
    assert (plan.hosted, plan.blobs, plan.pins, plan.tokens, plan.files) == ([], 0, 0, 0, [])
    out.seek(0)
    assert verify(out).blobs == 0


def test_file_that_another_user_has_opened_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root opens it, and becomes the owner of the cache, who may write to it, and not change its mode."""
    monkeypatch.setattr(os, "fchmod", _refused)
    folder = CacheDirectory(tmp_path / "cache")
    try:
        write_backup(folder, OutputFolder(tmp_path, 0o600), "a.tar", ignore)
        (tmp_path / "b.tar.part").touch(0o644)
        with pytest.raises(BackupError, match=r"b\.tar\.part is there, and readable for others"):
            write_backup(folder, OutputFolder(tmp_path, 0o600), "b.tar", ignore)
    finally:
        folder.close()
    assert (tmp_path / "a.tar").stat().st_size > 0


def _refused(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")
