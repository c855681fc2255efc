"""Mirrors whose coordinator, or object store, is cut off by a network that drops every packet.

A stopped program takes connections still; here nothing comes back at all, as with a cable that is pulled out.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from mirror.oci.digest import Digest
from tests.contract.test_shared_tier import X, sent, with_peers
from tests.e2e.netns import Namespace, namespace
from tests.e2e.test_tier import CLIENTS, MIB, MIRRORS, Mirror, blob, herd, site
from tests.engines import Engine, redis_server, running, seaweedfs, settings_of
from tests.fakes.registry import FakeRegistry

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.needs("redis-server", "ip", "iptables", root=True),
    pytest.mark.timeout(300),
]

# How long the engine is cut off, in seconds.
CUT_OFF = 10.0

# The longest wait for one engine of the tier, in seconds: all that a request asks of it.
TIMEOUT = 1.0

# What a busy machine takes beyond that, in seconds.
SLACK = 3.0


@pytest.fixture
def net() -> Iterator[Namespace]:
    with namespace() as found:
        yield found


def engines(folder: Path, net: Namespace, cut_off: str) -> tuple[Engine, Engine]:
    """Return store and coordinator, one of which is to run behind the cable."""
    for name in ("store", "redis"):
        (folder / name).mkdir()
    if cut_off == "store":
        store, coordinator = seaweedfs(folder / "store", net.there), redis_server(folder / "redis")
        store.command[:0] = net.enter
    else:
        store, coordinator = seaweedfs(folder / "store"), redis_server(folder / "redis", net.there)
        coordinator.command[:0] = net.enter
    return store, coordinator


@pytest.mark.parametrize("cut_off", ["coordinator", "store"])
async def test_tier_herd_survives_a_partition(
    fake: FakeRegistry, tmp_path: Path, net: Namespace, cut_off: str
) -> None:
    """No pull fails; new requests meanwhile wait no longer than the limit, and go on alone."""
    store, coordinator = await asyncio.to_thread(engines, tmp_path, net, cut_off)
    digest, small = blob(fake), [fake.add_blob("library/x", os.urandom(1024 * 1024)) for _ in range(3)]
    gate = fake.hold(digest, after=2 * 1024 * 1024)
    async with AsyncExitStack() as stack:
        for each in (store, coordinator):
            started = running(each)
            await asyncio.to_thread(started.__enter__)
            stack.push_async_callback(asyncio.to_thread, started.__exit__, None, None, None)
        settings = with_peers(settings_of(store, coordinator, prefix="p", timeout=TIMEOUT))
        async with site(fake, tmp_path, settings) as mirrors:

            async def disturb() -> None:
                await asyncio.to_thread(net.swallow)
                until = asyncio.get_running_loop().time() + CUT_OFF
                waits = [await asked(mirrors, each) for each in small]
                gate.release()
                await asyncio.sleep(until - asyncio.get_running_loop().time())
                await asyncio.to_thread(net.heal)
                longest = max(map(max, waits))
                print(f"{cut_off} cut off: new requests waited {longest:.2f} s at most")
                assert longest < 2 * TIMEOUT + SLACK

            assert await herd(mirrors, digest, disturb) == 0
    ratio = sent(fake, digest) / (MIB * 1024 * 1024)
    print(f"{MIRRORS} mirrors, {CLIENTS} clients, {MIB} MiB, {cut_off} cut off: upstream {ratio:.3f}")
    assert ratio <= MIRRORS


async def asked(mirrors: Sequence[Mirror], digest: Digest) -> list[float]:
    """Ask all mirrors for a blob that none has; return how long each took."""
    loop = asyncio.get_running_loop()

    async def ask(session: aiohttp.ClientSession, address: str) -> float:
        began = loop.time()
        async with session.get(f"http://{address}{X}/blobs/{digest}") as response:
            assert response.status == 200
            assert Digest.of(await response.read()) == digest
        return loop.time() - began

    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(ask(session, address) for _, address, _ in mirrors))
