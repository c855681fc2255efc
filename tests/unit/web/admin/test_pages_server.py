"""The server of the pages: what becomes of it when it cannot start; all else is in contract tests."""

from pathlib import Path

import pytest

from mirror.service import Service
from mirror.web.admin.pages_server import PagesServer
from mirror.web.identity.gate import Gate
from tests.running import configured


async def test_pages_that_cannot_start_leave_nothing_behind(tmp_path: Path) -> None:
    """The folder of the workers is not there."""
    config = configured(tmp_path / "cache", {"hub.test": "http://127.0.0.1:9"})
    service = await Service.open(config)
    pages = PagesServer(service, config, [], (tmp_path / "none", 0))
    with pytest.raises(OSError, match="No such file"):
        await pages.start(Gate(service, config))
    await pages.close()
    await pages.close()
    await service.close()
