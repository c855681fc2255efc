"""The pages as a browser without JavaScript has them: each is there, in both languages, and safe."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.access.rules import Action
from mirror.oci.manifest import OCI_MANIFEST
from tests.contract.test_pages_access import token
from tests.fakes.content import image_manifest
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Wire

ATTACK = "<script>alert(1)</script>"
REFERENCE = "hub.test/team/app:1"
PAGES = ["/", "/images", "/images?search=app", "/images/hub.test/team/app", f"/images/{REFERENCE}", "/me"]


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Paged]:
    """A mirror with an image whose author writes scripts into its config."""
    async with FakeRegistry() as hub, paged(configured(tmp_path, {"hub.test": hub.url})) as running:
        document = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {},
            "config": {"Env": [ATTACK], "Labels": {ATTACK: ATTACK}, "Entrypoint": [ATTACK]},
            "history": [{"created_by": ATTACK}],
        }
        config = hub.add_blob("team/app", json.dumps(document).encode())
        hub.add_manifest("team/app", image_manifest(json.dumps(document).encode(), [b"layer"]), tag="1")
        async with await Wire.open(running.address) as wire:
            for path in ("manifests/1", f"blobs/{config}"):
                wire.send("GET", f"/v2/team/app/{path}", [f"Accept: {OCI_MANIFEST}"])
                assert (await wire.reply()).status == 200
        await running.landed(config)
        yield running


@pytest.mark.parametrize("path", PAGES)
async def test_page_is_rendered_in_both_languages_without_inline_code(mirror: Paged, path: str) -> None:
    """Text of others is text: an image's author, and a visitor's words, run nothing."""
    for language, code in (("en-GB,en;q=0.9", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans")):
        reply = await mirror.ask(path, f"Accept-Language: {language}")
        text = reply.body.decode()
        assert reply.status == 200
        assert f'<html lang="{code}">' in text
        assert ATTACK not in text
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert ("现在" in text) is ("Now" not in re.sub("<[^>]*>", "", text))


async def test_page_of_an_image_shows_its_config(mirror: Paged) -> None:
    text = (await mirror.ask(f"/images/{REFERENCE}")).body.decode()
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5


async def test_pages_load_their_own_files_alone(mirror: Paged) -> None:
    """Each file of a page is there, under an address that changes with its content."""
    text = (await mirror.ask("/")).body.decode()
    files = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert not [each for each in files if not each.startswith(("/", "?", "#"))]
    static = {each for each in files if each.startswith("/static/")}
    assert len(static) == 6
    for each in static:
        reply = await mirror.ask(each)
        assert reply.status == 200
        assert "immutable" in reply.header("cache-control")
    assert (await mirror.ask("/static/../views.py")).status == 404
    assert (await mirror.ask("/static/zh.json")).status == 404


async def test_search_words_come_back_as_text(mirror: Paged) -> None:
    reply = await mirror.ask("/images?search=%22%3E%3Cscript%3E")
    assert b"<script>" not in reply.body.replace(b"<script src", b"")
    assert (await mirror.ask("/images?search=app&part=rows")).body.lstrip().startswith(b"<section")


async def test_language_is_chosen_by_a_link_and_remembered(mirror: Paged) -> None:
    """The cookie says nothing but that."""
    reply = await mirror.ask("/?lang=zh")
    cookie = reply.header("set-cookie")
    assert cookie.startswith("lang=zh;")
    assert "SameSite=Strict" in cookie
    assert 'lang="zh-Hans"' in (await mirror.ask("/", "Cookie: lang=zh")).body.decode()
    assert "set-cookie" not in (await mirror.ask("/?lang=evil")).headers


async def test_sign_in_asks_the_browser_once_and_leads_back(mirror: Paged) -> None:
    """Never to another site."""
    asked = await mirror.ask("/login?to=/images")
    assert asked.status == 401
    assert asked.header("www-authenticate").startswith("Basic")
    admin = await token(mirror, "me", Action.ADMIN)
    for to, location in (
        ("/images", "/images"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/%0d%0aX:1", "/"),
        ("/\\evil.example", "/"),
    ):
        reply = await mirror.ask(f"/login?to={to}", admin)
        assert (reply.status, reply.header("location")) == (303, location)


async def test_own_requests_answer_the_question(mirror: Paged) -> None:
    """Lines to copy have the address of this mirror, by the name that the visitor has used."""
    text = (await mirror.ask("/me")).body.decode()
    assert "Yes: your client uses this mirror." in text
    port = mirror.address.rpartition(":")[2]
    assert f"http://127.0.0.1:{port}" in text
    other = (await mirror.ask("/me", client="127.0.0.9")).body.decode()
    assert "Not in the last minutes." in other
    assert "team/app" not in other


async def test_errors_are_pages_too(mirror: Paged) -> None:
    for path, status in (
        ("/none", 404),
        ("/images/hub.test/none", 404),
        ("/images/hub.test/team/app:9", 404),
    ):
        reply = await mirror.ask(path)
        assert reply.status == status
        assert b"<h1>" in reply.body
    assert (await mirror.ask("/", method="POST")).status == 405
