"""The transfer context."""

from mirror.config.schema import FillSettings
from mirror.metrics.metrics import Metrics
from mirror.store.memory.store import MemoryStore
from mirror.transfer.context import TransferContext
from mirror.util.tasks import Tasks


async def test_context_has_its_own_corruption_tracker(tasks: Tasks) -> None:
    """Two services in one process do not take each other's sources for corrupt."""
    store = await MemoryStore.open()
    first, second = (TransferContext(store, tasks, Metrics(), FillSettings()) for _ in range(2))
    assert first.corruption is not second.corruption
    await store.close()
