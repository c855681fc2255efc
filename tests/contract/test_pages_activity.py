"""Activity: requests and downloads that run, those that have ended, and of all workers together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.manifest import OCI_MANIFEST
from mirror.web.admin.pages.render import moment
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.running import LARGE, configured
from tests.wire import Wire


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    """The private folder of the workers, in which one was killed."""
    folder = tmp_path / "workers"
    folder.mkdir()
    (folder / "7.ask").touch()
    return folder


async def until(mirror: Paged, found: Callable[[Any], bool], path: str = "activity") -> Any:
    """Return the activity as soon as it is as wanted."""
    async with asyncio.timeout(60):
        while not found(activity := await mirror.api(path)):
            pass
    return activity


async def test_activity_shows_a_transfer_from_its_request_to_its_end(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """The entry has client, content, outcome and progress; afterwards it is among the ended ones."""
    data = bytes(LARGE)
    blob = hub.add_blob("team/app", data)
    async with paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
        gate = hub.hold(blob, after=LARGE // 2)
        async with (
            await Wire.open(mirror.address) as first,
            await Wire.open(mirror.address, client="127.0.0.3") as second,
        ):
            for wire in (first, second):
                wire.send("GET", f"/v2/team/app/blobs/{blob}")
                await wire.head() if wire is first else None
            await gate.reached.wait()
            activity = await until(
                mirror, lambda each: len(each["requests"]) == 2 and _join(each) is not None
            )
            miss, join = activity["requests"]
            assert (miss["outcome"], miss["client"], miss["repository"]) == ("miss", "127.0.0.1", "team/app")
            assert (join["client"], join["length"], miss["length"]) == ("127.0.0.3", LARGE, LARGE)
            (download,) = activity["downloads"]
            assert (download["digest"], download["size"], download["clients"]) == (str(blob), LARGE, 2)
            assert 0 < download["received"] < LARGE
            source = hub.url.removeprefix("http://")
            assert (list(download["sources"]), list(download["rates"])) == ([source], [source])
            (flight,) = mirror.service.cache.fills()
            async with asyncio.timeout(60):
                while flight.progress.received_from[source] != flight.progress.received:
                    await mirror.api("activity")  # what has come is being written
            gate.release()
            assert await first.reader.readexactly(LARGE) == data
            assert (await second.reply()).body == data
        done = await until(mirror, lambda each: len(each["recent"]) == 2)
        assert done["requests"] == []
        assert {(each["outcome"], each["bytes"], each["status"]) for each in done["recent"]} == {
            ("miss", LARGE, 200),
            ("join", LARGE, 200),
        }


def _join(activity: Any) -> Any:
    return next((each for each in activity["requests"] if each["outcome"] == "join"), None)


async def test_activity_shows_when_a_rate_limit_renews(hub: FakeRegistry, tmp_path: Path) -> None:
    """Docker Hub tells the window: all is allowed again, at the latest, a window after its last answer."""
    hub.add_image("team/app", "1", [b"layer"])
    hub.limit = RateLimit(100)
    async with paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
        async with await Wire.open(mirror.address) as wire:
            before = time.time()
            wire.send("GET", "/v2/team/app/manifests/1", [f"Accept: {OCI_MANIFEST}"])
            assert (await wire.reply()).status == 200
        (upstream,) = (await mirror.api("activity"))["upstreams"]
        (account,) = upstream["sources"][0]["accounts"]
        assert (account["remaining"], account["limit"], account["window"]) == (99, 100, 21600)
        assert before + 21600 - 1 < account["renews"] < time.time() + 21600 + 1
        page = (await mirror.ask("/")).body.decode()
        assert f"99 left of 100 in 6.0 h<br><small>all again by {moment(account['renews'])}" in page
        assert "200: was not here, fetched" in page


async def test_activity_counts_what_the_response_cache_answers(hub: FakeRegistry, tmp_path: Path) -> None:
    """Such requests are entries with a count; their client is the one of each connection."""
    hub.add_image("team/app", "1", [b"layer"])
    async with paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
        async with await Wire.open(mirror.address) as wire:
            for _ in range(8):
                wire.send("GET", "/v2/team/app/manifests/1", [f"Accept: {OCI_MANIFEST}"])
                assert (await wire.reply()).status == 200
        await asyncio.to_thread(mirror.service.metrics.render)
        mirror.service.metrics.requests.flush_pending()
        recent = (await mirror.api("own-requests"))["requests"]
        assert sum(each["count"] for each in recent) == 8
        assert max(each["count"] for each in recent) > 1
        assert {(each["outcome"], each["reference"]) for each in recent} == {("miss", "1"), ("hit", "1")}


async def test_activity_of_any_worker_is_that_of_all(
    hub: FakeRegistry, workers: Path, tmp_path: Path
) -> None:
    """Two workers of one mirror: a pull from one is seen at the other; an ended worker delays nothing."""
    hub.add_image("team/app", "1", [b"layer"])
    config = configured(tmp_path / "cache", {"hub.test": hub.url})
    async with paged(config, (workers, 0)) as one, paged(config, (workers, 1)) as two:
        async with await Wire.open(one.address) as wire:
            wire.send("GET", "/v2/team/app/manifests/1", [f"Accept: {OCI_MANIFEST}"])
            assert (await wire.reply()).status == 200
        for mirror in (one, two):
            activity = await until(mirror, lambda each: len(each["recent"]) == 1)
            assert activity["workers"] == 2
            assert [each["name"] for each in activity["upstreams"]] == ["hub.test"]


async def test_activity_is_streamed_as_events(hub: FakeRegistry, tmp_path: Path) -> None:
    """A page gets the state at once, and again each second."""
    config = configured(tmp_path, {"hub.test": hub.url})
    async with paged(config) as mirror, await Wire.open(mirror.admin) as wire:
        wire.send("GET", "/api/v1/activity/stream", [f"Host: {mirror.admin}"])
        head = await wire.head()
        assert head.header("content-type") == "text/event-stream"
        for _ in range(2):
            assert b'"workers":1' in await wire.reader.readuntil(b"\n\n")


async def test_activity_has_whole_blobs_of_the_fast_path(hub: FakeRegistry, tmp_path: Path) -> None:
    """A large blob that is sent again without parsing is an entry as any other."""
    data = bytes(LARGE)
    blob = hub.add_blob("team/app", data)
    async with paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
        async with await Wire.open(mirror.address) as wire:
            for _ in range(5):
                wire.send("GET", f"/v2/team/app/blobs/{blob}")
                assert len((await wire.reply()).body) == LARGE
                await mirror.landed(blob)
        await until(mirror, lambda each: len(each["recent"]) == 5)
        found = (await mirror.api("activity"))["recent"]
        assert [(each["outcome"], each["bytes"]) for each in found][:4] == [("hit", LARGE)] * 4
