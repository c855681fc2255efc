"""The server of the pages: what becomes of it when it cannot start; all else is in contract tests."""

from io import StringIO
from pathlib import Path

import pytest

from mirror.config.schema import LogSettings
from mirror.service.service import Service
from mirror.util.log import configure
from mirror.web.admin.pages_server import PagesServer
from mirror.web.identity.gate import Gate
from tests.paged import paged
from tests.running import configured
from tests.wire import Wire


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


@pytest.mark.usefixtures("own_logging")
async def test_wrong_requests_write_no_secret_to_the_log(tmp_path: Path) -> None:
    """Anybody who reaches the listener could fill the log; the visitor's own token must not be in it."""
    log = StringIO()
    configure(LogSettings(format="json"), log)
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    async with paged(config) as mirror, await Wire.open(mirror.admin) as wire:
        wire.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer rmt_se\x00cret\r\n\r\n")
        assert (await wire.reply()).status == 400
    assert "rmt_se" not in log.getvalue()
    assert "Traceback" not in log.getvalue()
