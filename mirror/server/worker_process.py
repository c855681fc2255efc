"""Worker processes as their parent sees them: parameters, signals, stages, and what both do."""

import gc
import os
import signal
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from mirror.config.schema import Config
from mirror.system.sockets import ConnectionCounts, ListeningSocket

if TYPE_CHECKING:
    from mirror.store.cache_dir import CacheDirectory
    from mirror.system.shared_table import SharedTable

# Signals to a worker: finish running responses and end; other workers have taken over.
STOP, RETIRE = signal.SIGTERM, signal.SIGUSR1


class Announce(Protocol):
    """Says that the mirror is ready. `folder` is the cache folder, if this process has it open."""

    def __call__(
        self, config: Config, addresses: Sequence[str], folder: "CacheDirectory | None" = None
    ) -> None: ...


class WorkerSpec(Struct, frozen=True):
    """Parameters of a worker. `number`: unique among live workers, reused after a death.

    `sockets`: for clients; `operations`: for operators; `admin`: of the pages.
    `ready`: descriptor that takes a byte when the worker answers. `parent`: descriptor that reaches end of
    file when the parent dies. `first`: no worker has served before, so an only one says that it is ready.
    """

    number: int
    sockets: Sequence[ListeningSocket]
    counts: ConnectionCounts
    folder: Path
    ready: int
    parent: int
    operations: Sequence[ListeningSocket] = ()
    first: bool = False
    table: "SharedTable | None" = None
    admin: Sequence[ListeningSocket] = ()


class Stage(Enum):
    STARTING = auto()
    SERVING = auto()
    ENDING = auto()


class Worker(Struct, eq=False):
    """A worker; `config` and `ready` are None for one of the program before."""

    pid: int
    number: int
    config: Config | None
    ready: int | None
    lifeline: int
    born: float
    stage: Stage = Stage.STARTING

    def close(self) -> None:
        """Close the parent's ends of the worker's pipes."""
        os.close(self.lifeline)
        if self.ready is not None:
            os.close(self.ready)


def tune_garbage_collector() -> None:
    """Exempt all present objects from collection, and collect less often; nothing was collected before.

    At Python's own threshold (700 new objects) the collector takes an eighth of the processor time of small
    fills.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()
