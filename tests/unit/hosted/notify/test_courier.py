"""Webhooks: each change is told once, in order, signed, and again until it is taken."""

import asyncio
import hashlib
import hmac
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from structlog.testing import capture_logs

from mirror.config.hosting.webhooks import WebhookSettings
from mirror.hosted.notify.courier import FIRST_PAUSE, KEPT_SECONDS, Courier
from mirror.metrics.metrics import Metrics
from mirror.oci.reference import Repository, Tag
from mirror.util.tasks import Tasks
from tests.fakes.site import Seen, Site
from tests.hosting import APP, OTHER, hosted_of, office, push_image
from tests.running import Running

SECRET = b"0123456789abcdef"


class Receiver:
    """The address that is told. `status`: of its answers."""

    def __init__(self) -> None:
        self.status = 204
        self.told: list[dict[str, Any]] = []
        self.attempts = 0

    async def __call__(self, request: web.BaseRequest, _: Seen) -> web.StreamResponse:
        body, headers = await request.read(), request.headers
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = hmac.new(SECRET, signed, hashlib.sha256).digest()
        assert b64decode(headers["webhook-signature"].removeprefix("v1,")) == expected
        self.attempts += 1
        if self.status == 204:
            self.told.append(json.loads(body))
        return web.Response(status=self.status)

    def seen(self) -> list[tuple[str, str, str | None]]:
        return [(each["type"], each["data"]["repository"], each["data"].get("tag")) for each in self.told]


class Scene:
    """A mirror whose changes are told to a receiver, by a courier with a clock."""

    def __init__(self, mirror: Running) -> None:
        self.now = 1_700_000_000.0
        self.registry = hosted_of(mirror)
        self.registry.on_change.clear()
        self.registry.content.on_pull.clear()
        self._mirror = mirror
        self.tasks = Tasks()
        self.metrics = Metrics()
        self.courier = self.another()

    def another(self) -> Courier:
        """A courier of another process on the same folder."""
        return Courier(self.registry, self._mirror.config.hosted, self.tasks, self.metrics, self.clock)

    def clock(self) -> float:
        self.now += 0.001
        return self.now

    async def send(self) -> None:
        while self.tasks.running:  # noqa: ASYNC110  # each of them ends
            await asyncio.sleep(0)
        await self.courier.send_due()


@asynccontextmanager
async def told(tmp_path: Path, receiver: Receiver, **hook: Any) -> AsyncIterator[Scene]:
    secret = tmp_path / "secret"
    await asyncio.to_thread(secret.write_bytes, SECRET + b"\n")
    async with Site(receiver) as site:
        values = {"url": f"{site.url}/hook", "secret_file": str(secret), **hook}
        checked = await asyncio.to_thread(WebhookSettings.model_validate, values)
        async with office(tmp_path / "cache", webhooks=(checked,)) as mirror:
            scene = Scene(mirror)
            yield scene
            await scene.tasks.close()


async def test_changes_are_told_in_order(tmp_path: Path) -> None:
    receiver = Receiver()
    async with told(tmp_path, receiver) as scene:
        digest = await push_image(scene.registry, APP, "1")
        await scene.send()
        await push_image(scene.registry, APP, "1", [b"other"])
        await scene.send()
        await scene.registry.delete_tag(APP, Tag("1"))
        await scene.send()
        assert receiver.seen() == [("push", "app", "1"), ("push", "app", "1"), ("delete", "app", "1")]
        assert receiver.told[1]["data"]["before"] == str(digest)
        await scene.send()
        assert receiver.attempts == 3


async def test_failed_notification_is_sent_again_and_others_wait_behind_it(tmp_path: Path) -> None:
    receiver = Receiver()
    async with told(tmp_path, receiver, events=["push"]) as scene:
        receiver.status = 500
        for name in ("1", "2"):
            await push_image(scene.registry, APP, name, [name.encode()])
            await scene.send()
        assert receiver.attempts == 1
        receiver.status = 204
        scene.courier = scene.another()  # after a restart
        await scene.send()
        assert receiver.attempts == 1
        scene.now += FIRST_PAUSE
        await scene.send()
        assert receiver.seen() == [("push", "app", "1"), ("push", "app", "2")]


async def test_notification_is_dropped_after_three_days(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.status = 500
    async with told(tmp_path, receiver) as scene:
        await push_image(scene.registry, APP, "1")
        await scene.send()
        scene.now += KEPT_SECONDS + FIRST_PAUSE
        with capture_logs() as lines:
            await scene.send()
        assert any("dropped" in line["event"] for line in lines)
        assert not any(SECRET.decode() in str(line) for line in lines)
        scene.now += KEPT_SECONDS
        await scene.send()
        assert receiver.attempts == 2


async def test_first_pull_of_a_tag_is_told_once_after_each_push(tmp_path: Path) -> None:
    receiver = Receiver()
    async with told(tmp_path, receiver, events=["pull"]) as scene:
        for content in (b"one", b"two"):
            await push_image(scene.registry, APP, "1", [content])
            for _ in range(2):
                await scene.registry.content.get_manifest(APP, Tag("1"))
                await scene.registry.content.head_manifest(APP, Tag("1"))
                await scene.send()
        scene.registry.content.on_pull.clear()
        scene.another()  # another process
        await scene.registry.content.get_manifest(APP, Tag("1"))
        await scene.send()
        assert receiver.seen() == [("pull", "app", "1")] * 2


async def test_hook_is_told_what_it_asked_for(tmp_path: Path) -> None:
    receiver = Receiver()
    async with told(tmp_path, receiver, events=["push"], repositories=["team/*"]) as scene:
        for repository in (APP, OTHER, Repository("office", "team/new")):
            await push_image(scene.registry, repository, "1")
            await scene.send()
        await scene.registry.delete_tag(OTHER, Tag("1"))
        await scene.send()
        assert receiver.seen() == [("push", "team/other", "1"), ("push", "team/new", "1")]


async def test_notifications_of_a_hook_that_is_gone_are_forgotten(tmp_path: Path) -> None:
    receiver = Receiver()
    async with told(tmp_path, receiver) as scene:
        receiver.status = 500
        await push_image(scene.registry, APP, "1")
        await scene.send()
        scene.courier._hooks.clear()
        await scene.send()
        outbox = scene.courier._outbox
        assert await scene.registry.store.read(outbox.names) == []
