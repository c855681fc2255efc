"""Cache folders, opened for use; test_settling.py has what is settled."""

import asyncio
import os
import re
from pathlib import Path

import mirror
from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.store.hosted.opened import open_store
from mirror.store.hosted.push_journal import FOLDER


async def test_opened_store_has_settled_its_journal(tmp_path: Path) -> None:
    """Before anything reads; a folder without a journal gets none."""
    settings = CacheSettings(dir=tmp_path, min_free=Amount())
    await (await open_store(tmp_path, settings)).close()
    assert FOLDER not in await asyncio.to_thread(os.listdir, tmp_path)
    await asyncio.to_thread(leave_a_journal, tmp_path / FOLDER)
    await (await open_store(tmp_path, settings)).close()
    assert await asyncio.to_thread(os.listdir, tmp_path / FOLDER) == []


def leave_a_journal(folder: Path) -> None:
    folder.mkdir()
    (folder / "0").touch()


def test_cache_folders_are_opened_in_one_place() -> None:
    """Another place would read the remains of a power failure."""
    root = Path(mirror.__file__).parent
    opens = re.compile(r"\bCacheDirectory\((?!\w*\))|\bStore\.open\(")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if opens.search(path.read_text())}
    assert found == {"store/hosted/opened.py"}
