"""Views; tests/contract/test_pages_html.py has what they show."""

from pathlib import Path

import pytest

from mirror.service.service import Service
from mirror.web.admin.desk import Desk
from mirror.web.admin.pages.views import Views
from tests.running import configured


@pytest.mark.parametrize("path", ["/now", "/images/", "/static/pages.js", "/imagesx", "/settings/"])
async def test_only_pages_have_views(tmp_path: Path, path: str) -> None:
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    service = await Service.open(config)
    views = Views(Desk(service, config, 0))
    assert all(views.find(each) for each in ("/", "/images", "/images/a/b:1", "/savings", "/me", "/settings"))
    assert (views.find(path) is None) is not path.startswith("/images/")
    await service.close()
