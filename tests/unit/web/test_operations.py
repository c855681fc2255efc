"""The operators' listener; tests/contract/test_bounds_operations.py has what it serves."""

from pathlib import Path

from mirror.service.service import Service
from mirror.web.operations import OperationsListener
from mirror.web.probes import Probes
from tests.running import configured


async def test_operations_listener_without_sockets_does_nothing(tmp_path: Path) -> None:
    """Start and close are calls without an effect."""
    service = await Service.open(configured(tmp_path, {"docker.io": "http://127.0.0.1:9"}))
    listener = OperationsListener(Probes(service), [])
    await listener.start()
    await listener.close()
    await service.close()
