"""What crashes leave in the folder `partial/`, removed when it is old enough to be nobody's."""

import os
import time
from pathlib import Path

from mirror.store.lock import try_lock

# A file that is written in one go, or a lock without data, is somebody's for seconds.
SHORT_SECONDS = 3600.0

# A fill that was broken off is resumed for a week; then what it takes is better used for something else.
LONG_SECONDS = 7 * 24 * 3600.0


def sweep(partials: Path, now: float | None = None) -> list[str]:
    """Remove leftovers; the names of what is gone. `now`: seconds since the epoch. OSError."""
    now = time.time() if now is None else now
    gone: list[str] = []
    with os.scandir(partials) as entries:
        found = {each.name: now - each.stat(follow_symlinks=False).st_mtime for each in entries}
    for name, age in found.items():
        stem, _, kind = name.rpartition(".")
        if kind in ("map", "data") and stem:
            pair = [f"{stem}.{each}" for each in ("data", "map") if f"{stem}.{each}" in found]
            limit = LONG_SECONDS if len(pair) == 2 else SHORT_SECONDS
            if name == pair[0] and min(found[each] for each in pair) > limit and _remove(partials, stem):
                gone += pair
        elif name.startswith("small-") and age > SHORT_SECONDS:
            (partials / name).unlink(missing_ok=True)
            gone.append(name)
    return gone


def _remove(partials: Path, stem: str) -> bool:
    """The files of a digest that nobody fills; False when somebody does."""
    lock = try_lock(partials / f"{stem}.map")
    if lock is None:
        return False
    try:
        for kind in ("data", "map"):
            (partials / f"{stem}.{kind}").unlink(missing_ok=True)
    finally:
        os.close(lock)
    return True
