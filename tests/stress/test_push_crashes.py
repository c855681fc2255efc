"""Pushes and `kill -9`: at a random moment of a push, then the client's retry, and nothing is wrong."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.e2e.mirror import PROGRAM, Mirror
from tests.e2e.processes import run
from tests.fakes.pusher import Pusher, chunked, manifest_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = """
[[hosted]]
name = "office"

[[rule]]
name = "all"
effect = "allow"
networks = ["127.0.0.1"]
actions = ["push", "delete"]
"""


async def push(address: str, layer: bytes, tag: str) -> Digest:
    """Push an image as Docker does; raise at a connection that breaks."""
    async with await Pusher.open(address) as pusher:
        for data in (b"{}", layer):
            location = await pusher.session()
            pusher.wire.send("PATCH", location, ["Transfer-Encoding: chunked"])
            pusher.wire.writer.write(chunked(*(data[at : at + 65536] for at in range(0, len(data), 65536))))
            assert (await pusher.wire.reply("PATCH")).status == 202
            assert (await pusher.finish(location, Digest.of(data))).status == 201
        manifest = manifest_of([layer])
        assert (await pusher.manifest(tag, manifest)).status == 201
        return Digest.of(manifest)


async def killed_push(mirror: Mirror, layer: bytes, tag: str, seconds: float) -> None:
    """Push, and kill the mirror meanwhile."""
    pushing = asyncio.ensure_future(push(mirror.address, layer, tag))
    await asyncio.wait([pushing], timeout=seconds)
    await asyncio.to_thread(mirror.kill)
    with suppress(OSError, EOFError):
        await pushing


async def pulled(address: str, layer: bytes, tag: str) -> bool:
    async with await Pusher.open(address) as pusher:
        found = await pusher.ask("GET", f"manifests/{tag}")
        if found.status == 404:
            return False
        assert found.body == manifest_of([layer])
        assert (await pusher.ask("GET", f"blobs/{Digest.of(layer)}")).body == layer
        return True


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.nightly)])
def test_push_survives_kill_at_random_moments(tmp_path: Path, rounds: int) -> None:
    """After each kill a tag is whole or missing, and the retry succeeds; `verify` finds nothing."""
    config, random_ = tmp_path / "mirror.toml", random.Random(1)
    config.write_text(CONFIG)
    for number in range(rounds):
        layer, tag = random_.randbytes(3_000_000), f"v{number}"
        with Mirror(tmp_path / "mirror", "http://127.0.0.1:9", "--config", config) as mirror:
            asyncio.run(killed_push(mirror, layer, tag, random_.uniform(0, 0.15)))
        with Mirror(tmp_path / "mirror", "http://127.0.0.1:9", "--config", config) as mirror:
            asyncio.run(pulled(mirror.address, layer, tag))
            asyncio.run(push(mirror.address, layer, tag))
            assert asyncio.run(pulled(mirror.address, layer, tag))
    run([*PROGRAM, "verify", "--cache-dir", mirror.cache, "--config", config])
