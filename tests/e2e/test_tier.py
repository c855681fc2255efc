"""Four mirrors with a shared tier, as processes, under trouble: no pull fails, and each byte comes once.

The figures are those of loopback on one machine: the line is no limit there, and all share its processors.
Sizes are those that such a machine takes; TIER_CLIENTS and TIER_MIB in the environment make them larger, and
TIER_LOGS names a folder for the logs of all mirrors and of the upstream.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import aiohttp
import pytest

from mirror.config.tier.shared import SharedSettings
from mirror.oci.digest import Digest
from mirror.shared.keys import fill_key
from mirror.shared.redis_leases import RedisLeases
from mirror.transfer.shared.lead_window import LEAST_WINDOW, WINDOW_PART
from tests.contract.test_shared_tier import flush, leader, sent, with_peers
from tests.e2e import pullers
from tests.engines import Engine, free_port, redis_server, running, seaweedfs, settings_of
from tests.fakes.registry import FakeRegistry

pytestmark = [pytest.mark.nightly, pytest.mark.needs("redis-server"), pytest.mark.timeout(600)]

MIRRORS = 4
CLIENTS = int(os.environ.get("TIER_CLIENTS", "40"))
MIB = int(os.environ.get("TIER_MIB", "64"))
LEVEL = "debug" if os.environ.get("TIER_LOGS") else "info"
X = "/v2/docker.io/library/x"

# Time limit of a pull, in seconds.
TIMEOUT = 400.0

# Bytes of one write of the upstream: what it has sent is counted by these.
WRITE = 256 * 1024

# Bytes that the upstream may send again beyond the leader's window: what was on its way to the others.
SLACK = 16 * 1024 * 1024

# Process, address for clients, URL for the other mirrors.
Mirror = tuple[asyncio.subprocess.Process, str, str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("seaweedfs")
    with running(seaweedfs(folder, volumes=20 * (50 + 2 * MIB // 64))) as engine:
        yield engine
    shutil.rmtree(folder)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "redis").mkdir()
    with running(redis_server(tmp_path / "redis")) as engine:
        yield engine


@pytest.fixture(autouse=True)
def removed(tmp_path: Path) -> Iterator[None]:
    """Remove the mirrors' folders at the end, and keep their logs: those of 20 herds do not fit on a disk."""
    yield
    if keep := os.environ.get("TIER_LOGS"):
        shutil.copytree(tmp_path, Path(keep) / tmp_path.name, ignore=_all_but_logs)
    shutil.rmtree(tmp_path)


def _all_but_logs(folder: str, names: Sequence[str]) -> set[str]:
    return {each for each in names if not each.endswith(".log")}


@pytest.fixture
def settings(store: Engine, coordinator: Engine) -> SharedSettings:
    return with_peers(settings_of(store, coordinator, prefix=os.urandom(4).hex(), timeout=10))


@asynccontextmanager
async def site(fake: FakeRegistry, folder: Path, settings: SharedSettings) -> AsyncIterator[Sequence[Mirror]]:
    """Four empty mirrors in processes of their own."""
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(MIRRORS)]
        fill = "prefetch = 0"
        mirrors = [leader(fake, folder / str(port), at(settings, port), fill, LEVEL) for port in ports]
        started = await asyncio.gather(*(stack.enter_async_context(each) for each in mirrors))
        yield [(*each, f"http://127.0.0.1:{port}") for each, port in zip(started, ports, strict=True)]


def at(settings: SharedSettings, port: int) -> SharedSettings:
    """Return the settings of a mirror that other mirrors reach at this port."""
    values = {name: getattr(settings, name) for name in SharedSettings.options()}
    return SharedSettings.model_validate(values | {"peers_listen": f"127.0.0.1:{port}"})


async def pull(
    session: aiohttp.ClientSession, addresses: Sequence[str], digest: Digest, begun: asyncio.Event
) -> bool:
    """Pull a blob as a client with several hosts does; return whether all of it is right."""
    hasher, length = digest.hasher(), 0
    for attempt in range(pullers.TRIES):
        url = f"http://{addresses[attempt % len(addresses)]}{X}/blobs/{digest}"
        with suppress(aiohttp.ClientError, OSError):
            async with session.get(url, headers={"Range": f"bytes={length}-"}) as response:
                if response.status not in (200, 206) or (response.status == 200 and length):
                    continue
                async for chunk in response.content.iter_any():
                    hasher.update(chunk)
                    length += len(chunk)
                    begun.set()
        if hasher.hexdigest() == digest.encoded:
            return True
    return False


async def herd(mirrors: Sequence[Mirror], digest: Digest, disturb: Callable[[], Awaitable[None]]) -> int:
    """Have all clients pull at once, spread over the mirrors; return how many pulls have failed.

    One client of each mirror hashes what it gets. `disturb` when each of these has bytes.
    """
    addresses = [address for _, address, _ in mirrors]
    begun = [asyncio.Event() for _ in mirrors]
    timeout, connector = aiohttp.ClientTimeout(total=TIMEOUT), aiohttp.TCPConnector(limit=0)
    async with (
        crowd(addresses, digest) as counted,
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        pulls = []
        for number, each in enumerate(begun):
            order = addresses[number:] + addresses[:number]
            pulls.append(group.create_task(pull(session, order, digest, each)))
        for each in begun:
            await each.wait()
        await disturb()
        hashed = [await each for each in pulls]
        return hashed.count(False) + await counted()


@asynccontextmanager
async def crowd(addresses: Sequence[str], digest: Digest) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Have the other clients pull the blob, in a process of their own; yield how to count failed pulls."""
    path = f"{X}/blobs/{digest}"
    order = pullers.Order(addresses, path, MIB * 1024 * 1024, max(0, CLIENTS - len(addresses)), TIMEOUT)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", pullers.__name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")

    async def failed() -> int:
        output, _ = await process.communicate()
        return int(output)

    try:
        yield failed
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def blob(fake: FakeRegistry) -> Digest:
    fake.piece = WRITE
    return fake.add_blob("library/x", os.urandom(1024 * 1024) * MIB)


async def nothing() -> None:
    """Disturb nothing."""


async def killed(coordinator: Engine) -> None:
    await asyncio.to_thread(coordinator.kill)


async def stopped(coordinator: Engine) -> None:
    coordinator.stop()
    await asyncio.sleep(10)
    coordinator.go_on()


DISTURBANCES: dict[str, Callable[[Engine], Awaitable[None]]] = {
    "nothing": lambda _: nothing(),
    "killed": killed,
    "flushed": flush,
    "stopped": stopped,
}


@pytest.mark.parametrize("what", DISTURBANCES)
async def test_tier_herd_pulls_each_byte_once_whatever_the_coordinator_does(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings, coordinator: Engine, what: str
) -> None:
    """No pull fails; with a coordinator that is well, the upstream sends the blob exactly once."""
    digest = blob(fake)
    gate = fake.hold(digest, after=MIB * 1024 * 1024 // 2)

    async def disturb() -> None:
        await DISTURBANCES[what](coordinator)
        gate.release()

    async with site(fake, tmp_path, settings) as mirrors:
        assert await herd(mirrors, digest, disturb) == 0
    ratio = sent(fake, digest) / (MIB * 1024 * 1024)
    print(f"{MIRRORS} mirrors, {CLIENTS} clients, {MIB} MiB, {what}: upstream {ratio:.3f}")
    if what == "nothing":
        assert ratio == 1.0
    assert ratio <= MIRRORS


@pytest.mark.parametrize("seed", range(20))
async def test_tier_herd_survives_the_mirror_that_fetches(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings, seed: int
) -> None:
    """The leader is killed at a random moment once others follow: no pull fails.

    The upstream has no line here, and would run far ahead of the mirrors that follow. It sends again no more
    than the leader's window, which is 1/32 of a large blob.
    """
    digest, size = blob(fake), MIB * 1024 * 1024
    moment = random.Random(seed).uniform(0, 1)
    gate = fake.hold(digest, after=2 * 1024 * 1024)
    story: list[str] = []
    async with site(fake, tmp_path, settings) as mirrors:

        async def disturb() -> None:
            gate.release()
            begun = sent(fake, digest)
            while sent(fake, digest) < begun + moment * (size - begun):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            process, _, address = await leading(settings, digest, mirrors)
            os.killpg(process.pid, signal.SIGKILL)
            story.append(f"{time.time():.3f} {address} killed, {sent(fake, digest) / size:.3f} sent")

        assert await herd(mirrors, digest, disturb) == 0
    ratio = sent(fake, digest) / size
    story.append(f"{MIRRORS} mirrors, {CLIENTS} clients, {MIB} MiB, leader killed ({seed}): {ratio:.3f}")
    story += [f"{each.headers.get('Range')}: {each.sent} {each.peer}" for each in fake.log if each.sent]
    await asyncio.to_thread((tmp_path / "upstream.log").write_text, "\n".join(story))
    print(story[1])
    assert ratio <= 1.0 + (max(LEAST_WINDOW, size // WINDOW_PART) + SLACK) / size


async def leading(settings: SharedSettings, digest: Digest, mirrors: Sequence[Mirror]) -> Mirror:
    """Return the mirror that has the lease."""
    bucket = settings.bucket
    assert bucket is not None
    leases = RedisLeases(settings, f"{bucket.name}/{bucket.prefix}")
    holder = await leases.holder(fill_key(digest))
    await leases.close()
    assert holder is not None
    (found,) = [each for each in mirrors if each[2] == holder.address]
    return found
