"""A flood of made-up names at a mirror with pages: what the pages hold is known and bounded, too."""

import gc
from pathlib import Path

import pytest

from mirror.web.admin.pages_server import PagesServer
from tests.contract.test_bounds_names import BOUNDED, NAMES, containers, everything, flood
from tests.fakes.site import Site
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Wire

pytestmark = pytest.mark.slow


def grown(mirror: Paged) -> set[str]:
    """Return the containers that have grown, of the service and of the listener of the pages."""
    (pages,) = (
        each
        for each in gc.get_objects()
        if type(each) is PagesServer and each._desk.service is mirror.service
    )
    return {place for place, length in containers(pages) if length >= NAMES // 2}


async def test_names_of_clients_and_visitors_fill_known_containers_only(tmp_path: Path) -> None:
    """Clients pull names that they make up, and visitors search and open such names."""
    async with Site(everything) as site, paged(configured(tmp_path, {"u.test": site.url})) as mirror:
        await flood(mirror)
        before = {place for place in grown(mirror) if place not in BOUNDED}
        async with await Wire.open(mirror.admin) as wire:
            for number in range(NAMES):
                for path in (f"images?search=made{number}", f"image?reference=u.test/made/none{number}:t"):
                    wire.send("GET", f"/api/v1/{path}", [f"Host: {mirror.admin}"])
                    assert (await wire.reply()).status in (200, 404)
        found = grown(mirror)
        assert found - before <= BOUNDED
        assert before == set()
        assert found >= {"Activity._ended", "MemoryCache._contents"}
