"""A cache folder, opened for use: what is left in the journal of pushes is settled before anything reads."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.config.schema import CacheSettings
from mirror.store.cache_dir import CacheDirectory
from mirror.store.health import StoreHealth
from mirror.store.hosted.push_journal import FOLDER

if TYPE_CHECKING:
    from mirror.store.store import Store


def open_cache(
    path: Path, settings: CacheSettings | None = None, health: StoreHealth | None = None
) -> CacheDirectory:
    """Open or create a cache folder (`CacheDirectory`), whose pushes are whole then."""
    folder = CacheDirectory(path, settings, health)
    settle(folder)
    return folder


async def open_store(path: Path, settings: CacheSettings) -> "Store":
    """Open or create a cache folder for the event loop (`Store.open`), whose pushes are whole then."""
    from mirror.store.store import Store  # commands do without

    store = await Store.open(path, settings)
    await store.executor.run(settle, store.folder)
    return store


def settle(folder: CacheDirectory) -> None:
    """Settle what is left in the journal; a folder to which nothing was pushed has none."""
    if os.path.lexists(folder.path / FOLDER):
        from mirror.store.hosted.settling import settle_at_start

        settle_at_start(folder)


def settle_old(folder: CacheDirectory) -> None:
    """Settle what has been in the journal for a while. OSError and sqlite3.Error."""
    if os.path.lexists(folder.path / FOLDER):
        from mirror.store.hosted.settling import Settlement

        Settlement(folder).settle_old(time.time())
