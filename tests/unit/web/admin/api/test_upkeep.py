"""Operations about the cache as a whole: who may call them, and what they hide."""

import asyncio
import json
from pathlib import Path

from mirror.access.rules import Action
from tests.contract.test_pages_access import token
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Wire

CHANGE = ("X-Registry-Mirror: 1", "Content-Type: application/json")


async def collect(mirror: Paged, *headers: str, dry_run: bool = False) -> tuple[int, dict[str, object]]:
    body = json.dumps({"dry_run": dry_run}).encode()
    reply = await mirror.ask("/api/v1/garbage", *headers, method="POST", body=body)
    return reply.status, json.loads(reply.body)


async def test_usage_is_for_operators(tmp_path: Path) -> None:
    """An administrator sees all of it; others see nothing where rules restrict somebody."""
    rules = [{"name": "no betas", "effect": "deny", "tags": ["*beta*"]}]
    async with (
        FakeRegistry() as hub,
        paged(configured(tmp_path, {"docker.io": hub.url}, rules=rules)) as mirror,
    ):
        hub.add_image("library/alpine", "3.20", [b"layer"])
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", "/v2/library/alpine/manifests/3.20")
            assert (await wire.reply()).status == 200
        assert (await mirror.ask("/api/v1/usage")).status == 401
        admin = await token(mirror, "me", Action.ADMIN)
        names = [each["name"] for each in await mirror.api("usage", admin)]
        assert sorted(names) == ["docker.io", "docker.io/library/alpine"]
        (row,) = await mirror.api("usage?pattern=docker.io/lib*", admin)
        assert (row["name"], row["is_upstream"]) == ("docker.io/library/alpine", False)
        assert await mirror.api("usage?pattern=" + "*a" * 200, admin) == []


async def test_garbage_is_collected_for_administrators_alone(tmp_path: Path) -> None:
    """A visitor at this machine, a token for something else and a request without the header are refused."""
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror:
        puller, admin = await token(mirror, "puller", Action.PULL), await token(mirror, "me", Action.ADMIN)
        assert (await collect(mirror, *CHANGE))[0] == 401
        assert (await collect(mirror, *CHANGE, puller))[0] == 403
        assert (await collect(mirror, CHANGE[1], admin))[0] == 403
        status, done = await collect(mirror, *CHANGE, admin, dry_run=True)
        assert (status, done["dry_run"], done["freed"]) == (200, True, 0)
        both = await asyncio.gather(collect(mirror, *CHANGE, admin), collect(mirror, *CHANGE, admin))
        assert {status for status, _ in both} <= {200, 409}
