"""The plan and the archive of an empty folder."""

import io
from pathlib import Path

from mirror.manage.backup.restore import verify
from mirror.manage.backup.writer import plan_backup, write_backup
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
