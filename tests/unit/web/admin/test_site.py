"""The site; tests/contract/test_pages_access.py has who may see what."""

from pathlib import Path

from tests.paged import paged
from tests.running import configured


async def test_site_answers_probes_and_refuses_unknown_paths(tmp_path: Path) -> None:
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror:
        assert (await mirror.ask("/healthz")).body == b"ok\n"
        for path in ("/none", "/v2/", "/metrics", "//api/v1/about", "/static/../site.py"):
            assert (await mirror.ask(path)).status == 404
