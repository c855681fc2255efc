"""Operations about images: pages of lists, and one image."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.manifest import OCI_MANIFEST
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Wire

TAGS = ["1", "2", "3", "latest"]


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Paged]:
    async with FakeRegistry() as hub, paged(configured(tmp_path, {"hub.test": hub.url})) as running:
        async with await Wire.open(running.address) as wire:
            for name in ("team/app", "team/other"):
                for tag in TAGS:
                    hub.add_image(name, tag, [f"{name}{tag}".encode()])
                    wire.send("GET", f"/v2/{name}/manifests/{tag}", [f"Accept: {OCI_MANIFEST}"])
                    assert (await wire.reply()).status == 200
        yield running


async def pages(mirror: Paged, path: str) -> list[str]:
    """All rows of a list, page by page."""
    found, after = [], ""
    while True:
        page = await mirror.api(f"{path}&after={after}")
        assert len(page["rows"]) <= 3
        found += [each.get("reference") or each["name"] for each in page["rows"]]
        after = page["next"]
        if not after:
            return found


async def test_lists_have_each_row_once_whatever_the_pages(mirror: Paged) -> None:
    """A search finds words in any order, in repositories and tags."""
    everything = [f"hub.test/{name}:{tag}" for name in ("team/app", "team/other") for tag in TAGS]
    assert await pages(mirror, "images?limit=3") == everything
    assert await pages(mirror, "images?limit=1&repository=hub.test/team/other") == everything[4:]
    assert await pages(mirror, "images?limit=3&search=LATEST+app") == ["hub.test/team/app:latest"]
    assert await pages(mirror, "images?limit=3&search=%25") == []
    assert await pages(mirror, "repositories?limit=1") == ["hub.test/team/app", "hub.test/team/other"]
    assert await pages(mirror, "repositories?limit=3&search=oth") == ["hub.test/team/other"]


async def test_image_that_is_named_is_shown(mirror: Paged) -> None:
    """An image is found by tag and by digest; the layer of this one was not pulled."""
    image = await mirror.api("image?reference=hub.test/team/app:1")
    assert (image["missing"], image["pins"], len(image["platforms"])) == (2, [], 1)
    again = await mirror.api(f"image?reference=hub.test/team/app@{image['digest']}")
    assert (again["tag"], again["digest"]) == ("", image["digest"])
    assert (await mirror.ask("/api/v1/image?reference=hub.test/team/app:none")).status == 404
