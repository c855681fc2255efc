"""Uploads that are open, over the wire: they count in the quotas, and give way when nobody continues them."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.contract.hosting import hosting
from tests.fakes.pusher import Pusher, chunked, error
from tests.running import Running, serving

DATA = b"x" * 4000


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Running]:
    config = await hosting(tmp_path, hosted=[{"name": "office", "quota": "10KB"}])
    async with serving(config) as running:
        yield running


async def test_open_uploads_count_in_the_quota(mirror: Running, tmp_path: Path) -> None:
    async with await Pusher.open(mirror.address) as pusher:
        sessions = [await pusher.session() for _ in range(3)]
        for location in sessions[:2]:
            assert (await pusher.ask("PATCH", location, body=DATA)).status == 202
        refused = await pusher.ask("PATCH", sessions[2], "Expect: 100-continue", body=DATA)
        assert error(refused) == (403, "DENIED")
        assert b"other uploads that are open have 7.81 KiB" in refused.body
    async with await Pusher.open(mirror.address) as pusher:
        pusher.wire.send("PATCH", sessions[2], ["Transfer-Encoding: chunked"])
        pusher.wire.writer.write(chunked(DATA))
        assert error(await pusher.wire.reply("PATCH")) == (403, "DENIED")
    await asyncio.to_thread(age, tmp_path / "cache" / "uploads", sessions[0])
    async with await Pusher.open(mirror.address) as pusher:
        assert (await pusher.finish(sessions[2], Digest.of(DATA), body=DATA)).status == 201
        assert (await pusher.ask("GET", sessions[0])).status == 404
        assert (await pusher.finish(sessions[1], Digest.of(DATA))).status == 201


async def test_open_uploads_are_measured(mirror: Running) -> None:
    """Open uploads are counted, with their bytes, until their end."""
    async with await Pusher.open(mirror.address) as pusher:
        given_up, kept = await pusher.session(), await pusher.session()
        assert (await pusher.ask("PATCH", kept, body=DATA)).status == 202
        assert await measured(mirror) == (2, len(DATA))
        await pusher.ask("DELETE", given_up)
        await pusher.finish(kept, Digest.of(DATA))
        assert await measured(mirror) == (0, 0)


async def measured(mirror: Running) -> tuple[float, float]:
    families = {each.name: each for each in await mirror.service.statistics.families()}
    names = ("registry_mirror_hosted_uploads", "registry_mirror_hosted_upload_bytes")
    uploads, size = (next(iter(families[name].samples.values())) for name in names)
    return uploads, size


def age(folder: Path, location: str) -> None:
    (path,) = folder.glob(f"*-{location.rpartition('/')[2].partition('?')[0]}.*")
    os.utime(path, (1000, 1000))


async def test_bodies_that_come_at_once_count_as_they_will_be(mirror: Running) -> None:
    """Neither has a byte on the disk when the second one is refused."""
    body = b"y" * 6000
    async with await Pusher.open(mirror.address) as first, await Pusher.open(mirror.address) as second:
        locations = [await each.session() for each in (first, second)]
        first.wire.send("PATCH", locations[0], [f"Content-Length: {len(body)}", "Expect: 100-continue"])
        assert await first.wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        refused = await second.ask("PATCH", locations[1], body=body)
        assert error(refused) == (403, "DENIED")
        first.wire.writer.write(body)
        assert (await first.wire.reply("PATCH")).status == 202
        assert (await first.finish(locations[0], Digest.of(body))).status == 201
