"""The pages in Chromium: light and dark, phone and desk, by keyboard alone, in both languages.

The pictures of a run are in the folder that PAGES_PICTURES names, if it is set.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright

from mirror.access.rules import Action
from mirror.oci.manifest import OCI_MANIFEST
from tests.contract.test_pages_access import token
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.pinned import pinned
from tests.programs import program
from tests.running import CHUNK, LARGE, configured
from tests.wire import Wire

AXE = pinned()["axe-core"].folder / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]
needs_axe = pytest.mark.skipif(
    not pinned()["axe-core"].installed, reason="axe-core is not there: .ci/clients"
)

IMAGE = "/images/docker.io/library/alpine:3.20"
PAGES = ["/", "/images?search=alpine", "/images", IMAGE, "/savings", "/me", "/settings"]
CONNECTIONS = 16
WIDTHS = {"phone": 375, "desk": 1440}


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[tuple[Paged, str]]:
    """A mirror with images, one of which is being pulled by two clients."""
    async with FakeRegistry() as hub:
        hub.limit = RateLimit(200)
        config = configured(folder, {"docker.io": hub.url, "quay.io": hub.url})
        async with paged(config) as mirror:
            image = hub.add_image("library/alpine", "3.20", [b"layer" * 5000, b"small"])
            for number in range(12):
                hub.add_image("library/alpine", f"3.{number}", [b"layer" * 5000])
                hub.add_image(f"team/app{number}", "latest", [bytes([number]) * 9000])
            big = hub.add_blob("library/alpine", bytes(LARGE))
            async with await Wire.open(mirror.address) as wire:
                names = [f"library/alpine/manifests/3.{each}" for each in (*range(12), 20)]
                names += [f"team/app{each}/manifests/latest" for each in range(12)]
                names += [f"library/alpine/blobs/{each}" for each in (image.config, *image.layers)]
                for name in names:
                    wire.send("GET", f"/v2/{name}", [f"Accept: {OCI_MANIFEST}"])
                    assert (await wire.reply()).status == 200
            # As many as there may be connections: no other one fetches what one of them waits for.
            gate, *others = [hub.hold(big, after=4 * CHUNK) for _ in range(CONNECTIONS)]
            async with (
                await Wire.open(mirror.address, client="127.0.0.3") as first,
                await Wire.open(mirror.address, client="127.0.0.4") as second,
            ):
                for wire in (first, second):
                    wire.send("GET", f"/v2/library/alpine/blobs/{big}")
                await gate.reached.wait()
                yield mirror, await token(mirror, "me", Action.ADMIN)
                for each in (gate, *others):
                    each.release()


@pytest.fixture
async def browser(blockbuster: Any) -> AsyncIterator[Any]:
    """Chromium of this machine; its driver may block the loop of this test."""
    blockbuster.deactivate()
    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
        yield chromium
        await chromium.close()
    blockbuster.activate()


async def opened(browser: Any, mirror: Paged, width: int, scheme: str = "light", **options: Any) -> Any:
    context = await browser.new_context(
        base_url=f"http://{mirror.admin}",
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
        **options,
    )
    page = await context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda line: page.faults.append(line.text) if line.type == "error" else None)
    return page


async def picture(page: Any, name: str) -> None:
    if folder := os.environ.get("PAGES_PICTURES"):
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@needs_axe
async def test_pages_open_in_a_browser(browser: Any, tmp_path: Path) -> None:
    """Each page once, on a desk: no error of a script, and no serious finding of axe-core."""
    async with scene(tmp_path) as (mirror, admin):
        headers = {"Authorization": admin.partition(": ")[2]}
        page = await opened(browser, mirror, WIDTHS["desk"], extra_http_headers=headers)
        for path in PAGES:
            assert (await page.goto(path)).ok, path
            assert await _axe(page) == [], path
        assert page.faults == []


@pytest.mark.nightly
@needs_axe
async def test_pages_are_accessible_at_every_width_and_in_both_schemes(browser: Any, tmp_path: Path) -> None:
    """No serious finding of axe-core, no error of a script, and nothing wider than the window."""
    async with scene(tmp_path) as (mirror, admin):
        headers = {"Authorization": admin.partition(": ")[2]}
        for scheme in ("light", "dark"):
            for width_name, width in WIDTHS.items():
                page = await opened(browser, mirror, width, scheme, extra_http_headers=headers)
                for path in PAGES:
                    assert (await page.goto(path)).ok, path
                    await page.wait_for_load_state("load")
                    name = path.strip("/").partition("?")[0].replace("/", "_") or "now"
                    await picture(page, f"{name}-{scheme}-{width_name}")
                    wide = await page.evaluate("document.documentElement.scrollWidth")
                    assert wide <= width, f"{path} is {wide} wide"
                    assert await _axe(page) == [], f"{path} {scheme} {width_name}"
                assert page.faults == []
                await page.context.close()


async def _axe(page: Any) -> list[str]:
    """Return the serious findings of axe-core, which is run past the policy of the page."""
    await page.evaluate(await asyncio.to_thread(AXE.read_text))
    found = await page.evaluate("axe.run()")
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.nightly
async def test_pages_show_what_happens_and_work_by_keyboard(browser: Any, tmp_path: Path) -> None:
    """Requests appear by themselves; the search answers while one types; an image is pinned and removed."""
    async with scene(tmp_path) as (mirror, admin):
        headers = {"Authorization": admin.partition(": ")[2]}
        page = await opened(browser, mirror, 1440, extra_http_headers=headers)
        await page.goto("/")
        await page.wait_for_selector("text=127.0.0.4")
        assert await page.locator("progress").count() == 3  # of two requests, and of their download
        downloads = await page.inner_text("section[aria-labelledby=fills-title]")
        assert re.search(r"127\.0\.0\.1:\d+ .1, \d+ B/s", downloads)
        assert "left of 200 in 6.0 h" in await page.inner_text("section[aria-labelledby=upstreams-title]")
        assert await page.locator(".uplot canvas").count() == 1
        await page.goto("/images")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.focus("#search")
        await page.keyboard.type("alpine 3.2")
        await page.wait_for_selector(f'a[href="{IMAGE}"]')
        await page.focus(f'a[href="{IMAGE}"]')
        await page.keyboard.press("Enter")
        await page.wait_for_selector("[data-action=pin]")
        await page.focus("[data-action=pin]")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("[data-action=unpin]")
        await page.focus("[data-action=unpin]")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("[data-action=unpin]", state="detached")
        await page.focus("[data-action=remove]")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#question[open]")
        await picture(page, "question")
        await page.keyboard.press("Escape")
        await page.wait_for_selector("#question:not([open])", state="attached")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#question[open]")
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/images")
        assert page.faults == []
        assert (await mirror.ask("/api/v1/image?reference=docker.io/library/alpine:3.20")).status == 404


@pytest.mark.nightly
async def test_pages_read_without_a_script_and_in_chinese(browser: Any, tmp_path: Path) -> None:
    """The language of the browser counts until another one is chosen."""
    async with scene(tmp_path) as (mirror, _):
        page = await opened(browser, mirror, 1440, locale="zh-CN", java_script_enabled=False)
        for path in ("/", "/images?search=alpine", IMAGE, "/me"):
            assert (await page.goto(path)).ok
            await picture(page, f"zh-{path.strip('/').partition('?')[0].replace('/', '_') or 'now'}")
        assert "是我吗" in await page.inner_text("nav")
        await page.click("text=English")
        assert "Is it me?" in await page.inner_text("nav")
        await page.goto("/images")
        assert "Is it me?" in await page.inner_text("nav")
        await page.fill("#search", "app3")
        await page.click("form button")
        assert "docker.io/team/app3" in await page.inner_text("main")
    await asyncio.sleep(0)
