"""What the parts of the transfer share."""

from pathlib import Path

from mirror.config.loader import Fill
from mirror.metrics.metrics import Metrics
from mirror.store.store import Store
from mirror.transfer.context import Tools
from mirror.util.tasks import Tasks


async def test_contexts_share_no_corruption_tracker(tmp_path: Path, tasks: Tasks) -> None:
    """Two services in one process do not take each other's sources for corrupt."""
    store = await Store.open(tmp_path / "cache")
    first, second = (Tools(store, tasks, Metrics(), Fill()) for _ in range(2))
    assert first.doubts is not second.doubts
    await store.close()
