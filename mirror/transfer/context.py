"""What every part of the transfer and of the cache needs, in one value."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.config.loader import Fill as FillSettings
from mirror.metrics.metrics import Metrics
from mirror.store.store import Store
from mirror.transfer.corruption import Doubts
from mirror.util.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Tools:
    """What every part of the cache needs, made once by the composition root.

    `clock` is the wall clock, in seconds since the epoch.
    """

    store: Store
    tasks: Tasks
    metrics: Metrics
    settings: FillSettings
    doubts: Doubts = field(default_factory=Doubts)
    clock: Callable[[], float] = time.time
