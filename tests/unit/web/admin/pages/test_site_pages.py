"""Requests for pages; tests/contract/test_pages_html.py has languages, sign-in and errors."""

from pathlib import Path

from tests.paged import paged
from tests.running import configured


async def test_part_of_a_page_is_streamed_as_events(tmp_path: Path) -> None:
    """The text of an event is one JSON string."""
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror:
        reply = await mirror.ask("/?part=events", method="HEAD")
        assert reply.header("content-type") == "text/event-stream"
        assert (await mirror.ask("/static/pages.css", method="POST")).status == 404
