"""Words of a reload: to the service manager, and to the workers of the configuration before."""

import time
from contextlib import closing
from pathlib import Path

from mirror.system.sd_notify import notify


def note_new_rules(folder: Path) -> None:
    """End what workers have remembered for clients; old workers look at their signals before they go on."""
    from mirror.store.invalidation import Epoch  # the parent imports it at the first reload

    with closing(Epoch(folder / "generation")) as epoch:
        epoch.note_access_change()


def notify_reloading() -> None:
    """Tell the service manager that a reload has begun, and when."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
