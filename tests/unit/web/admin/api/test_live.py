"""Operations about now."""

import asyncio
from pathlib import Path

from mirror.oci.manifest import OCI_MANIFEST
from mirror.web.admin.api.live import pause
from tests.fakes.registry import FakeRegistry
from tests.paged import paged
from tests.running import LARGE, configured
from tests.wire import Wire


async def test_troubles_have_a_reason_and_something_to_do(tmp_path: Path) -> None:
    """An upstream that does not answer is one of them; its breaker is open."""
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    async with paged(config) as mirror:
        for _ in range(20):
            async with await Wire.open(mirror.address) as wire:
                wire.send("GET", "/v2/team/app/manifests/1", [f"Accept: {OCI_MANIFEST}"])
                await wire.reply()
            if found := await mirror.api("troubles"):
                break
        assert found[0]["what"] == "hub.test"
        assert found[0]["reason"]
        assert "registry-mirror doctor" in found[0]["to_do"]


def test_events_of_all_streams_are_due_at_one_moment() -> None:
    """Streams share one look at all workers; after one that took long there is a pause all the same."""
    assert [round(pause(now), 3) for now in (100.0, 100.25, 100.75, 100.9, 103.1)] == [
        1,
        0.75,
        0.25,
        1.1,
        0.9,
    ]


async def test_disk_has_what_is_cached(tmp_path: Path) -> None:
    async with FakeRegistry() as hub:
        blob = hub.add_blob("team/app", bytes(70_000))
        async with paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
            async with await Wire.open(mirror.address) as wire:
                wire.send("GET", f"/v2/team/app/blobs/{blob}")
                assert len((await wire.reply()).body) == 70_000
            await mirror.landed(blob)
            disk = await mirror.api("disk")
            assert (disk["cached"], disk["blobs"]) == (70_000, 1)
            assert disk["total"] > disk["free"] > 0
    await asyncio.sleep(0)


async def test_download_names_the_sources_of_its_bytes(tmp_path: Path) -> None:
    """The page Now and the API say where a download gets its bytes from, while it does."""
    async with FakeRegistry() as hub:
        blob = hub.add_blob("team/app", bytes(LARGE))
        gate = hub.hold(blob, after=LARGE // 4)
        async with (
            paged(configured(tmp_path, {"hub.test": hub.url})) as mirror,
            await Wire.open(mirror.address) as wire,
        ):
            wire.send("GET", f"/v2/team/app/blobs/{blob}")
            await gate.reached.wait()
            (download,) = (await mirror.api("activity"))["downloads"]
            (source,) = download["sources"]
            assert download["sources"][source] >= 1
            assert f"{source} \N{MULTIPLICATION SIGN}".encode() in (await mirror.ask("/")).body
            gate.release()
            assert len((await wire.reply()).body) == LARGE
            await mirror.landed(blob)
            assert (await mirror.api("activity"))["downloads"] == []
