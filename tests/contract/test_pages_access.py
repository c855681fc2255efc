"""The pages and their API: who is refused, and that nothing tells of what its visitor may not pull."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.access.rules import Action
from mirror.manage.tokens import WantedToken, create_token
from mirror.oci.manifest import OCI_MANIFEST
from mirror.web.admin.api import images
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Wire

# Two clients; the rules know one of them.
OFFICE, STRANGER = "127.0.0.1", "127.0.0.2"
SECRET, OPEN = "team/secret", "team/open"
RULES = [
    {"name": "office", "effect": "allow", "networks": [OFFICE]},
    {"name": "nobody else", "effect": "deny", "repositories": ["hub.test/team/secret"]},
    {"name": "no betas", "effect": "deny", "tags": ["*-rc*"], "actions": ["pull"]},
]


async def filled(mirror: Paged, hub: FakeRegistry) -> None:
    """Have the office pull three tags."""
    hub.add_image(SECRET, "1", [b"secret"])
    hub.add_image(OPEN, "1", [b"open"])
    hub.add_image(OPEN, "2-rc1", [b"beta"])
    async with await Wire.open(mirror.address, client=OFFICE) as wire:
        for name, tag in ((SECRET, "1"), (OPEN, "1"), (OPEN, "2-rc1")):
            wire.send("GET", f"/v2/{name}/manifests/{tag}", [f"Accept: {OCI_MANIFEST}"])
            assert (await wire.reply()).status == 200


async def token(mirror: Paged, name: str, *actions: Action) -> str:
    secret, _ = await asyncio.to_thread(
        create_token, mirror.service.folder, WantedToken(name, actions=actions)
    )
    return f"Authorization: Bearer {secret}"


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def open_mirror(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Paged]:
    """A mirror without rules."""
    config = configured(tmp_path, {"hub.test": hub.url}, admin={"hosts": ["mirror.lan"]})
    async with paged(config) as mirror:
        await filled(mirror, hub)
        yield mirror


@pytest.fixture
async def ruled(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Paged]:
    """A mirror whose rules hide a repository and a tag from strangers."""
    async with paged(configured(tmp_path, {"hub.test": hub.url}, rules=RULES)) as mirror:
        await filled(mirror, hub)
        yield mirror


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("mirror.lan", 200),
        ("mirror.lan:5002", 200),
        ("localhost:5002", 200),
        ("127.0.0.1", 200),
        ("[::1]:5002", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("mirror.lan.evil.example:5002", 421),
        ("mirror.lan@evil.example", 421),
        ("x" * 300, 421),
        ("", 421),
    ],
)
async def test_pages_refuse_foreign_names(open_mirror: Paged, host: str, status: int) -> None:
    """A page elsewhere, whose name was made to mean this machine (DNS rebinding), reads nothing."""
    async with await Wire.open(open_mirror.admin) as wire:
        wire.send("GET", "/api/v1/about", [f"Host: {host}"])
        assert (await wire.reply()).status == status


async def test_pages_without_rules_show_others_to_this_machine_alone(open_mirror: Paged) -> None:
    """Visitors behind a proxy are elsewhere: they see the images, and no other client."""
    local = await open_mirror.api("activity")
    assert {each["client"] for each in local["recent"]} == {OFFICE}
    for header in (
        "X-Forwarded-For: 10.0.0.9",
        "Forwarded: for=10.0.0.9",
        "X-Real-IP: 10.0.0.9",
        "Via: 1.1 x",
    ):
        assert (await open_mirror.api("about", header))["operator"] is False
        assert (await open_mirror.ask("/api/v1/pins", header)).status == 401
        rows = (await open_mirror.api("images", header))["rows"]
        assert [each["tag"] for each in rows] == ["1", "2-rc1", "1"]
        assert (await open_mirror.api("activity", header, client="127.0.0.9"))["recent"] == []
    assert (await open_mirror.api("upstreams"))[0]["name"] == "hub.test"


async def test_pages_hide_what_a_visitor_may_not_pull(ruled: Paged) -> None:
    """Neither lists, nor search, nor one image by name, nor what others pull tells of it."""
    rows = (await ruled.api("repositories", client=STRANGER))["rows"]
    assert rows == [{"name": "hub.test/team/open", "tags": 1, "more": False}]
    for query in ("", "?search=secret", "?repository=hub.test/team/secret", "?search=rc1"):
        reply = await ruled.ask(f"/api/v1/images{query}", client=STRANGER)
        assert reply.status == 200
        assert b"secret" not in reply.body
        assert b"2-rc1" not in reply.body
    unknown = await ruled.ask("/api/v1/image?reference=hub.test/team/none:1", client=STRANGER)
    for name in ("secret:1", "open:2-rc1"):
        reply = await ruled.ask(f"/api/v1/image?reference=hub.test/team/{name}", client=STRANGER)
        assert reply.status == 404
        assert reply.body == unknown.body.replace(b"none:1", name.encode())
    assert (await ruled.api("image?reference=hub.test/team/open:1", client=STRANGER))["tag"] == "1"
    activity = await ruled.api("activity", client=STRANGER)
    assert activity["recent"] == activity["upstreams"] == activity["downloads"] == []
    for path in ("upstreams", "disk", "troubles", "pins"):
        assert (await ruled.ask(f"/api/v1/{path}", client=STRANGER)).status == 401


async def test_pages_hide_a_strangers_own_refused_requests_from_no_one_but_others(ruled: Paged) -> None:
    """A visitor sees only those of its own requests that it may know of."""
    async with await Wire.open(ruled.address, client=STRANGER) as wire:
        for name in (SECRET, OPEN):
            wire.send("GET", f"/v2/{name}/manifests/1", [f"Accept: {OCI_MANIFEST}"])
            await wire.reply()
    own = await ruled.api("own-requests", client=STRANGER)
    assert [each["repository"] for each in own["requests"]] == [OPEN]
    assert own["address"] == STRANGER


async def test_pages_hide_images_that_are_too_young_for_their_visitor(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """No list has them, nor does a digest lead to them; the office, and later everybody, sees them."""
    rule = {"name": "three days", "effect": "deny", "networks": [STRANGER], "min_age": "3d"}
    async with paged(configured(tmp_path, {"hub.test": hub.url}, rules=[rule])) as mirror:
        await filled(mirror, hub)
        path = "images?repository=hub.test/team/open"
        rows = (await mirror.api(path, client=OFFICE))["rows"]
        assert [each["tag"] for each in rows] == ["1", "2-rc1"]
        assert (await mirror.api(path, client=STRANGER))["rows"] == []
        assert (await mirror.api("images?search=open", client=STRANGER))["rows"] == []
        assert await counts(mirror, OFFICE) == {"hub.test/team/open": 2, "hub.test/team/secret": 1}
        assert await counts(mirror, STRANGER) == {"hub.test/team/open": 0, "hub.test/team/secret": 0}
        assert "0 tags" in (await mirror.ask("/images", client=STRANGER)).body.decode()
        digest = (await mirror.api("image?reference=hub.test/team/open:1", client=OFFICE))["digest"]
        for reference in ("hub.test/team/open:1", f"hub.test/team/open@{digest}"):
            reply = await mirror.ask(f"/api/v1/image?reference={reference}", client=STRANGER)
            assert (reply.status, b"first seen here on" in reply.body) == (403, True)
            assert digest.encode() not in reply.body or "@" in reference
            page = await mirror.ask(f"/images/{reference}", client=STRANGER)
            assert (page.status, b"layer" in page.body.lower()) == (403, False)
        mirror.service.cache.images.clock = lambda: time.time() + 4 * 86_400
        rows = (await mirror.api(path, client=STRANGER))["rows"]
        assert [each["tag"] for each in rows] == ["1", "2-rc1"]
        assert (await mirror.api("image?reference=hub.test/team/open:1", client=STRANGER))["tag"] == "1"
        assert await counts(mirror, STRANGER) == await counts(mirror, OFFICE)


async def counts(mirror: Paged, client: str) -> dict[str, int]:
    """The number of tags of each repository, as a client sees it."""
    rows = (await mirror.api("repositories", client=client))["rows"]
    assert not any(each["more"] for each in rows)
    return {each["name"]: each["tags"] for each in rows}


async def test_tags_that_take_too_long_to_count_are_not_all_counted(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says that there may be more."""
    monkeypatch.setattr(images, "COUNT_SECONDS", 60.0)
    async with paged(configured(tmp_path, {"hub.test": hub.url}, rules=RULES)) as mirror:
        await filled(mirror, hub)
        assert await counts(mirror, STRANGER) == {"hub.test/team/open": 1}
        monkeypatch.setattr(images, "COUNT_SECONDS", -1.0)
        rows = (await mirror.api("repositories", client=STRANGER))["rows"]
        assert rows == [{"name": "hub.test/team/open", "tags": 0, "more": True}]
        assert "0+ tags" in (await mirror.ask("/images", client=STRANGER)).body.decode()


async def test_pages_open_to_a_token_for_the_action_admin(ruled: Paged) -> None:
    """Nobody else is an administrator: not the office, no other token, and not after a revocation."""
    admin, other = await token(ruled, "me", Action.ADMIN), await token(ruled, "ci", Action.PULL)
    unlimited = await token(ruled, "any")
    about = await ruled.api("about", admin, client=STRANGER)
    assert (about["admin"], about["operator"], about["names"]) == (True, True, ["token:me"])
    rows = (await ruled.api("repositories", admin, client=STRANGER))["rows"]
    assert [each["name"] for each in rows] == ["hub.test/team/open", "hub.test/team/secret"]
    assert len((await ruled.api("activity", admin, client=STRANGER))["recent"]) == 3
    for header in (other, unlimited):
        assert (await ruled.api("about", header))["admin"] is False
        assert (await ruled.ask("/api/v1/pins", header)).status == 403
    assert (await ruled.api("about", client=OFFICE))["operator"] is False
    assert (await ruled.ask("/api/v1/about", f"{admin}x")).status == 401


async def test_pages_answer_errors_as_json_without_a_browser_dialogue(open_mirror: Paged) -> None:
    """Unknown paths, methods and parameters are told apart; nothing is framed, loaded or cached."""
    for path, status in (
        ("/api/v1/none", 404),
        ("/api/v1/images?limit=0", 422),
        ("/api/v1/images?limit=x", 422),
        ("/api/v1/images?nonsense=1", 422),
        ("/api/v1/images?limit=1&limit=2", 422),
        (f"/api/v1/images?search={'x' * 300}", 422),
        ("/api/v1/images?repository=x", 422),
        ("/api/v1/image?reference=hub.test/a/*:1", 422),
        ("/api/v1/image?reference=evil.test/a:1", 422),
    ):
        reply = await open_mirror.ask(path)
        assert reply.status == status, path
        assert set(json.loads(reply.body)) == {"error", "to_do"}
    reply = await open_mirror.ask("/api/v1/about", method="POST")
    assert (reply.status, reply.header("allow")) == (405, "GET")
    assert "default-src 'self'" in reply.header("content-security-policy")
    assert "unsafe" not in reply.header("content-security-policy")
    assert reply.header("x-content-type-options") == "nosniff"
    assert "access-control-allow-origin" not in reply.headers
