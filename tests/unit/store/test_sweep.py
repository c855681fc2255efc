"""What crashes leave, and what only looks like it."""

import os
import time
from pathlib import Path

from mirror.store.lock import try_lock
from mirror.store.sweep import LONG_SECONDS, SHORT_SECONDS, sweep

NOW = time.time()


def make(folder: Path, age: float, *names: str) -> None:
    for name in names:
        (folder / name).touch()
        os.utime(folder / name, (NOW - age, NOW - age))


def test_only_what_is_old_and_nobodys_goes(tmp_path: Path) -> None:
    """A fill that may be resumed stays for a week, one that runs for ever."""
    make(tmp_path, SHORT_SECONDS + 1, "small-a", "sha256-b.map", "sha256-c.data")
    make(tmp_path, SHORT_SECONDS - 1, "small-d", "sha256-e.map")
    make(tmp_path, SHORT_SECONDS + 1, "sha256-f.map", "sha256-f.data", "something else")
    make(tmp_path, LONG_SECONDS + 1, "sha256-g.map", "sha256-g.data", "sha256-h.map", "sha256-h.data")
    make(tmp_path, LONG_SECONDS + 1, "sha256-i.map", "sha256-i.data")
    make(tmp_path, 5.0, "sha256-i.data")
    lock = try_lock(tmp_path / "sha256-h.map")
    assert lock is not None
    gone = sweep(tmp_path, NOW)
    os.close(lock)
    assert sorted(gone) == ["sha256-b.map", "sha256-c.data", "sha256-g.data", "sha256-g.map", "small-a"]
    assert sorted(os.listdir(tmp_path)) == [
        "sha256-e.map",
        "sha256-f.data",
        "sha256-f.map",
        "sha256-h.data",
        "sha256-h.map",
        "sha256-i.data",
        "sha256-i.map",
        "small-d",
        "something else",
    ]
