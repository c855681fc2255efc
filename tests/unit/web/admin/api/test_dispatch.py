"""Dispatch of requests; tests/contract/test_pages_access.py has the errors, too."""

import asyncio
from pathlib import Path

import pytest

from mirror.web.admin.api import dispatch
from mirror.web.admin.api.dispatch import encoded
from mirror.web.admin.api.operation import ErrorAnswer
from tests.paged import paged
from tests.running import configured
from tests.wire import Wire


async def test_dispatch_answers_head_without_a_body(tmp_path: Path) -> None:
    """A query that is too long is answered with 414."""
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror:
        reply = await mirror.ask("/api/v1/about", method="HEAD")
        assert (reply.status, reply.body) == (200, b"")
        stream = await mirror.ask("/api/v1/activity/stream", method="HEAD")
        assert stream.header("content-type") == "text/event-stream"
        assert (await mirror.ask(f"/api/v1/images?search={'x' * 5000}")).status == 414


async def test_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody could take a connection for good with one."""
    monkeypatch.setattr(dispatch, "BODY_SECONDS", 0.05)
    headers = ["X-Registry-Mirror: 1", "Content-Type: application/json", "Content-Length: 5"]
    async with (
        paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror,
        asyncio.timeout(60),
        await Wire.open(mirror.admin) as wire,
    ):
        wire.send("POST", "/api/v1/pins", [f"Host: {mirror.admin}", *headers])
        assert (await wire.head()).status == 408


def test_half_of_a_character_in_an_answer_is_no_obstacle() -> None:
    """Anybody who pushes an image decides about its JSON."""
    assert encoded(ErrorAnswer("a\ud800b", "")) == b'{"error": "a?b", "to_do": ""}'
