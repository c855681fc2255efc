"""Actions on the pages: who may not, and what they do."""

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mirror.access.rules import Action
from mirror.hosted.replication.target import ReplicaTarget
from mirror.oci.manifest import OCI_MANIFEST
from tests.contract.test_pages_access import token
from tests.fakes.registry import FakeRegistry
from tests.hosting import APP, hosted_of, push_image
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Reply, Wire

NAME = "hub.test/team/app:1"
HEADER, JSON = "X-Registry-Mirror: 1", "Content-Type: application/json"


class Scene:
    """A mirror with one image that a client has pulled, and another one that it has looked at."""

    def __init__(self, mirror: Paged, admin: str) -> None:
        self.mirror = mirror
        self.admin = admin

    async def change(self, method: str, path: str, *headers: str, **values: Any) -> Reply:
        body = json.dumps({"reference": NAME, **values}).encode()
        return await self.mirror.ask(f"/api/v1/{path}", *headers, method=method, body=body)

    async def done(self, method: str, path: str, **values: Any) -> Any:
        reply = await self.change(method, path, HEADER, JSON, self.admin, **values)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with FakeRegistry() as hub, paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
        image = hub.add_image("team/app", "1", [b"layer"])
        hub.add_image("team/app", "2", [b"other"])
        async with await Wire.open(mirror.address) as wire:
            for path in (
                "manifests/1",
                "manifests/2",
                f"blobs/{image.config}",
                f"blobs/{image.layers[0]}",
            ):
                wire.send("GET", f"/v2/team/app/{path}", [f"Accept: {OCI_MANIFEST}"])
                assert (await wire.reply()).status == 200
        for each in (image.config, image.layers[0]):
            await mirror.landed(each)
        yield Scene(mirror, await token(mirror, "me", Action.ADMIN))


CHANGES = [("POST", "pins"), ("DELETE", "pins"), ("DELETE", "image"), ("POST", "warm")]


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_change_needs_an_administrator_and_comes_from_these_pages(
    scene: Scene, method: str, path: str
) -> None:
    """Nothing changes without a token, with another one, from a page elsewhere, or by a form."""
    other = await token(scene.mirror, "ci", Action.PULL, Action.LIST)
    for status, headers in (
        (401, (HEADER, JSON)),
        (403, (HEADER, JSON, other)),
        (403, (JSON, scene.admin)),
        (403, (HEADER, JSON, scene.admin, "Origin: http://evil.example")),
        (403, (HEADER, JSON, scene.admin, "Sec-Fetch-Site: cross-site")),
        (415, (HEADER, "Content-Type: text/plain", scene.admin)),
        (415, (HEADER, "Content-Type: application/x-www-form-urlencoded", scene.admin)),
    ):
        assert (await scene.change(method, path, *headers)).status == status
    for values in ({"reference": 1}, {"nonsense": 1}, {"reference": "x" * 700}):
        reply = await scene.change(method, path, HEADER, JSON, scene.admin, **values)
        assert reply.status == 422
    long = await scene.mirror.ask(
        f"/api/v1/{path}", HEADER, JSON, scene.admin, method=method, body=b" " * 20_000
    )
    assert long.status == 413
    assert (await scene.mirror.api(f"image?reference={NAME}"))["pins"] == []


async def test_image_is_pinned_and_removed(scene: Scene) -> None:
    """A pinned image is not removed; the plan says how much a removal frees."""
    pinned = await scene.done("POST", "pins")
    assert pinned["pattern"] == NAME
    assert (await scene.mirror.api(f"image?reference={NAME}"))["pins"] == [NAME]
    refused = await scene.change("DELETE", "image", HEADER, JSON, scene.admin)
    assert (refused.status, json.loads(refused.body)["to_do"]) == (409, "unpin it before")
    assert await scene.done("DELETE", "pins") == {"removed": True}
    assert await scene.done("DELETE", "pins") == {"removed": False}
    plan = await scene.mirror.api(f"removal?reference={NAME}", scene.admin)
    removed = await scene.done("DELETE", "image")
    assert removed == plan
    assert removed["images"] == [NAME]
    assert removed["freed"] > 0
    assert (await scene.mirror.ask(f"/api/v1/image?reference={NAME}")).status == 404
    assert (await scene.mirror.ask(f"/api/v1/removal?reference={NAME}")).status == 401


async def test_removed_hosted_image_is_queued_for_replication(tmp_path: Path) -> None:
    """Tag and manifest are deleted at its targets, as after a removal by a client or a command."""
    hosted = [{"name": "office", "mirror_to": [{"url": "http://127.0.0.1:9", "deletes": True}]}]
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"}, hosted=hosted)) as mirror:
        digest = await push_image(hosted_of(mirror), APP, "1", [b"layer"])
        scene = Scene(mirror, await token(mirror, "me", Action.ADMIN))
        await scene.done("DELETE", "image", reference="office/app:1")
        (settings,) = hosted_of(mirror).settings(APP).mirror_to
        target = ReplicaTarget("office", settings, mirror.service.folder)
        assert {each.reference for each in await asyncio.to_thread(target.queue.entries) if each.deletes} == {
            "1",
            str(digest),
        }


async def test_missing_parts_are_fetched(scene: Scene) -> None:
    """The image that was only looked at becomes complete."""
    name = "hub.test/team/app:2"
    assert (await scene.mirror.api(f"image?reference={name}"))["missing"] == 2
    assert await scene.done("POST", "warm", reference=name) == {"reference": name}
    async with asyncio.timeout(60):
        while (await scene.mirror.api(f"image?reference={name}"))["missing"]:
            pass


async def test_image_is_downloaded_as_a_bundle(scene: Scene) -> None:
    """A tar of the announced length, for anybody who may pull; what is not complete is refused."""
    reply = await scene.mirror.ask(f"/api/v1/bundle?reference={NAME}")
    assert reply.status == 200
    assert reply.complete
    assert reply.header("content-disposition") == 'attachment; filename="team_app.tar"'
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as archive:
        assert {"oci-layout", "index.json"} <= set(archive.getnames())
    refused = await scene.mirror.ask("/api/v1/bundle?reference=hub.test/team/app:2")
    assert (refused.status, json.loads(refused.body)["to_do"]) == (409, "fetch the image before")
    head = await scene.mirror.ask(f"/api/v1/bundle?reference={NAME}", method="HEAD")
    assert head.header("content-length") == str(len(reply.body))


async def test_bundle_of_a_visitor_that_leaves_ends(scene: Scene) -> None:
    """The place is free again for others."""
    for _ in range(4):
        async with await Wire.open(scene.mirror.admin) as wire:
            wire.send("GET", f"/api/v1/bundle?reference={NAME}", [f"Host: {scene.mirror.admin}"])
            await wire.head()
            wire.reset()
    async with asyncio.timeout(60):
        while (await scene.mirror.ask(f"/api/v1/bundle?reference={NAME}")).status != 200:
            pass


async def test_image_that_is_pinned_by_one_of_its_tags_loses_the_other(tmp_path: Path) -> None:
    """The answer says what was removed, and what stays; once nothing goes, it is a refusal."""
    async with FakeRegistry() as hub, paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
        image = hub.add_image("team/app", "1", [b"layer"])
        hub.repository("team/app").tags["2"] = str(image.manifest)
        async with await Wire.open(mirror.address) as wire:
            for tag in "12":
                wire.send("GET", f"/v2/team/app/manifests/{tag}", [f"Accept: {OCI_MANIFEST}"])
                assert (await wire.reply()).status == 200
        scene = Scene(mirror, await token(mirror, "me", Action.ADMIN))
        await scene.done("POST", "pins", platforms=[])
        name = f"hub.test/team/app@{image.manifest}"
        found = await scene.done("DELETE", "image", reference=name)
        assert (found["images"], found["pinned"]) == (["hub.test/team/app:2"], [NAME])
        again = await scene.change("DELETE", "image", HEADER, JSON, scene.admin, reference=name)
        assert (again.status, b"is pinned, and stays" in again.body) == (409, True)
