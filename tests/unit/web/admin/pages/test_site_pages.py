"""Requests for pages; tests/contract/test_pages_html.py has languages, sign-in and errors."""

import asyncio
import json
from pathlib import Path
from typing import Any

from mirror.web.admin.pages.parts import OPERATOR_PARTS
from tests.paged import paged
from tests.running import configured
from tests.wire import Wire


async def test_page_is_streamed_as_events_of_what_has_changed(tmp_path: Path) -> None:
    """The first event has all parts; the second one none of those that are as they were."""
    async with (
        paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror,
        asyncio.timeout(60),
        await Wire.open(mirror.admin) as wire,
    ):
        wire.send("GET", "/?part=events", [f"Host: {mirror.admin}"])
        await wire.head()
        first, second = [await _event(wire), await _event(wire)]
    assert first["parts"].keys() == OPERATOR_PARTS.keys()
    assert "hub.test" in first["parts"]["now_upstreams"]
    assert {"now_upstreams", "now_running", "now_recent"}.isdisjoint(second["parts"])
    assert second["now"] > first["now"]


async def _event(wire: Wire) -> Any:
    while not (line := await wire.reader.readline()).startswith(b"data: "):
        pass
    return json.loads(line[6:])


async def test_events_are_for_pages_that_have_them(tmp_path: Path) -> None:
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror:
        reply = await mirror.ask("/?part=events", method="HEAD")
        assert reply.header("content-type") == "text/event-stream"
        reply = await mirror.ask("/savings?part=events", method="HEAD")
        assert reply.header("content-type") == "text/html; charset=utf-8"
        assert (await mirror.ask("/static/pages.css", method="POST")).status == 404
