"""POST of a notification: taken with 2xx, and nothing is followed."""

import pytest
from aiohttp import web

from mirror.upstream.notify.webhook_client import WebhookFailed, post
from tests.fakes.site import Seen, Site


async def test_notification_is_posted_and_anything_but_2xx_is_a_failure() -> None:
    bodies: list[tuple[str, bytes, str]] = []

    async def answer(request: web.BaseRequest, _: Seen) -> web.StreamResponse:
        bodies.append((request.method, await request.read(), request.headers["x"]))
        status = int(request.raw_path[1:])
        return web.Response(status=status, headers={"Location": "/204"} if status == 302 else {})

    async with Site(answer) as site:
        await post(f"{site.url}/204", {"x": "y"}, "body")
        assert bodies == [("POST", b"body", "y")]
        for status in (302, 400, 500):
            with pytest.raises(WebhookFailed, match=str(status)):
                await post(f"{site.url}/{status}", {"x": "y"}, "body")
        assert len(bodies) == 4


async def test_address_without_a_server_is_a_failure() -> None:
    with pytest.raises(WebhookFailed):
        await post("http://127.0.0.1:1/", {}, "body")
