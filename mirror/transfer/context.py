"""The dependencies that all parts of the transfer and of the cache share, in one value."""

import time
from collections.abc import Callable

from msgspec import Struct, field

from mirror.config.schema import FillSettings
from mirror.metrics.metrics import Metrics
from mirror.store.store import Store
from mirror.transfer.corruption import CorruptionTracker
from mirror.transfer.plan import DEFAULT_LIMITS, PlanLimits
from mirror.util.tasks import Tasks


class TransferContext(Struct, frozen=True):
    """Shared dependencies, made once by the composition root.

    `clock` is the wall clock, in seconds since the epoch; `limits` are those of all downloads.
    """

    store: Store
    tasks: Tasks
    metrics: Metrics
    settings: FillSettings
    corruption: CorruptionTracker = field(default_factory=CorruptionTracker)
    clock: Callable[[], float] = time.time
    limits: PlanLimits = DEFAULT_LIMITS
