"""Deploys and restarts in the middle of pulls: clients that connect meanwhile wait, and none is refused."""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.e2e.fleet import Fleet, fleet
from tests.e2e.images import tar_of
from tests.e2e.matrix.daemons import NEW, start_containerd
from tests.e2e.matrix.tools import tool
from tests.e2e.processes import PATIENCE, attempt
from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.pinned import pinned
from tests.running import LARGE, LARGE_DATA
from tests.wire import get

pytestmark = pytest.mark.slow

BIG = LARGE_DATA
HALF = LARGE // 2
OTHERS = 6

# Bytes of each range in which containerd fetches a layer.
RANGE = 512 * 1024

# As systemd starts a service with a socket unit: descriptors from 3 on are the sockets.
ACTIVATE = """
import fcntl, os, sys
numbers = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[1].split(",")]
for target, number in enumerate(numbers, 3):
    os.dup2(number, target)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""

# A program that cannot start: what the path of the old one has after a broken upgrade.
BROKEN = "raise ImportError('broken upgrade')\n"


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as hub:
        yield hub


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name, for the sockets of daemons."""
    with tempfile.TemporaryDirectory(prefix="c") as folder:
        yield Path(folder)


def image_of(hub: FakeRegistry) -> FakeImage:
    """Return an image of one large layer and some others."""
    return hub.add_image("library/x", "t", [BIG, *(bytes([n]) * 70_000 for n in range(OTHERS))])


class Activated:
    """A mirror whose socket the test holds, as systemd does."""

    def __init__(self, mirror: Fleet) -> None:
        self.mirror = mirror
        self.listening = socket.create_server(("127.0.0.1", mirror.port), backlog=1024)

    async def start(self) -> None:
        number = self.listening.fileno()
        wrapper = [sys.executable, "-c", ACTIVATE, str(number), "registry-mirror.socket"]
        await self.mirror.start(wrapper, [number])
        await self.mirror.notified("READY=1")

    async def restart(self) -> None:
        self.mirror.signal(signal.SIGTERM)
        await self.mirror.notified("STOPPING=1")
        assert await self.mirror.exit_status() == 0
        await self.start()


async def _reload(mirror: Fleet) -> None:
    await asyncio.to_thread(mirror.configure, 1, "header_timeout = 19")
    mirror.signal(signal.SIGHUP)
    await mirror.notified("RELOADING=1", "READY=1")


async def _hand_over(mirror: Fleet) -> None:
    mirror.signal(signal.SIGUSR2)
    await mirror.notified("RELOADING=1", "READY=1")


async def _crash(mirror: Fleet) -> None:
    (worker,) = await mirror.workers()
    os.kill(worker, signal.SIGKILL)
    await mirror.until(lambda pids: pids != [] and worker not in pids, "a worker in its place")


async def _sequential(mirror: Fleet, connections: int, *, cut_allowed: bool) -> int:
    """Ask on one new connection after another; return how many answers came. None may be refused."""
    answered = 0
    for _ in range(connections):
        try:
            reply = await get(mirror.address, "/v2/library/x/manifests/t")
        except (ConnectionResetError, asyncio.IncompleteReadError):
            assert cut_allowed
            continue
        answered += reply.status == 200
    return answered


@pytest.mark.parametrize("change", [_reload, _hand_over, _crash], ids=["SIGHUP", "SIGUSR2", "kill -9"])
async def test_held_socket_refuses_no_connection(
    hub: FakeRegistry, tmp_path: Path, change: Callable[[Fleet], Awaitable[None]]
) -> None:
    """200 connections one after another, over two changes of the only worker: a parent holds the socket."""
    image_of(hub)
    async with fleet(tmp_path, hub.url, 1) as mirror:
        await get(mirror.address, "/v2/library/x/manifests/t")
        before = await mirror.workers()
        asking = asyncio.ensure_future(_sequential(mirror, 200, cut_allowed=change is _crash))
        for _ in range(2):
            await change(mirror)
        answered = await asking
        assert 200 - answered <= (2 if change is _crash else 0)
        after = await mirror.workers()
        assert before != after


async def test_activated_socket_refuses_no_connection(hub: FakeRegistry, tmp_path: Path) -> None:
    """200 connections one after another while the whole mirror restarts."""
    image_of(hub)
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, 1)
    activated = Activated(mirror)
    try:
        with activated.listening:
            await activated.start()
            await get(mirror.address, "/v2/library/x/manifests/t")
            asking = asyncio.ensure_future(_sequential(mirror, 200, cut_allowed=False))
            await activated.restart()
            assert await asking == 200
    finally:
        await mirror.close()


async def test_activated_sockets_have_names(hub: FakeRegistry, tmp_path: Path) -> None:
    """FileDescriptorName=operations is for operators: clients then have /healthz alone."""
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, 1, 'operations_listen = ["127.0.0.1:1"]')
    try:
        with (
            socket.create_server(("127.0.0.1", mirror.port)) as clients,
            socket.create_server(("127.0.0.1", 0)) as operators,
        ):
            numbers = [operators.fileno(), clients.fileno()]
            names = "operations:registry-mirror.socket"
            wrapper = [sys.executable, "-c", ACTIVATE, ",".join(map(str, numbers)), names]
            await mirror.start(wrapper, numbers)
            await mirror.notified("READY=1")
            probes = f"127.0.0.1:{operators.getsockname()[1]}"
            assert (await get(probes, "/readyz")).status == 200
            assert (await get(mirror.address, "/readyz")).status == 404
            assert (await get(mirror.address, "/healthz")).status == 200
            assert "server.listen is not used" not in await mirror.logged()
    finally:
        await mirror.close()


async def test_activated_socket_elsewhere_than_listen_is_told(hub: FakeRegistry, tmp_path: Path) -> None:
    """An operator who changes `listen`, and not the socket unit, finds out from the log."""
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, 1)
    try:
        with socket.create_server(("127.0.0.1", 0)) as held:
            number = held.fileno()
            wrapper = [sys.executable, "-c", ACTIVATE, str(number), ""]
            await mirror.start(wrapper, [number])
            await mirror.notified("READY=1")
            said = await mirror.logged()
            assert "server.listen is not used" in said
            assert f"127.0.0.1:{mirror.port}" in said
    finally:
        await mirror.close()


async def test_handover_keeps_process_and_running_responses(hub: FakeRegistry, tmp_path: Path) -> None:
    """SIGUSR2: same process id, a worker of the new program, and the old one ends after its response."""
    image = image_of(hub)
    async with fleet(tmp_path, hub.url, 1) as mirror, AsyncExitStack() as stack:
        await get(mirror.address, "/v2/library/x/manifests/t")
        gate = hub.hold(image.layers[0], after=HALF)
        # On a busy machine the mirror finds the connection too slow, and asks for the rest over others.
        others = [hub.hold(image.layers[0], after=-1) for _ in range(20)]
        (old,) = await mirror.workers()
        wire = await stack.enter_async_context(await mirror.connect(old))
        wire.send("GET", f"/v2/library/x/blobs/{image.layers[0]}")
        await gate.reached.wait()
        for _ in range(2):  # a program that was handed over to hands over as well
            await _hand_over(mirror)
        workers = await mirror.workers()
        assert old in workers
        assert len(workers) in (2, 3)
        for each in (gate, *others):
            each.release()
        assert (await wire.reply()).body == BIG
        await mirror.until(lambda pids: len(pids) == 1 and old not in pids, "the old workers' end")
        assert (await get(mirror.address, "/v2/")).status == 200
        mirror.signal(signal.SIGTERM)
        assert await mirror.exit_status() == 0


async def test_handover_to_several_workers(hub: FakeRegistry, tmp_path: Path) -> None:
    """A changed configuration is taken up, as by SIGHUP."""
    image_of(hub)
    async with fleet(tmp_path, hub.url, 2) as mirror:
        before = await mirror.workers()
        await asyncio.to_thread(mirror.configure, 3)
        await _hand_over(mirror)
        await mirror.until(lambda pids: len(pids) == 3 and not {*pids} & {*before}, "three new workers")
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200


async def test_handover_to_a_broken_program_is_refused(hub: FakeRegistry, tmp_path: Path) -> None:
    """The trial of the new program fails: the log says so, the old one goes on, and a mended one is taken."""
    image_of(hub)
    package = tmp_path / "program" / "mirror"
    source = Path(__file__).parent.parent.parent / "mirror"
    await asyncio.to_thread(shutil.copytree, source, package)
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, 1)
    try:
        await mirror.start(["env", f"--chdir={package.parent}", f"PYTHONPATH={package.parent}"])
        await mirror.notified("READY=1")
        before = await mirror.workers()
        module = package / "web" / "app.py"
        right = await asyncio.to_thread(module.read_text)
        await asyncio.to_thread(module.write_text, BROKEN)
        await _hand_over(mirror)
        said = await mirror.logged()
        assert "broken upgrade" in said
        assert "the newer program cannot start, this one stays" in said
        assert await mirror.workers() == before
        await asyncio.to_thread(module.write_text, right)
        await _hand_over(mirror)
        await mirror.until(lambda pids: len(pids) == 1 and pids != before, "a worker of the new program")
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
    finally:
        await mirror.close()


async def test_handover_to_a_wrong_configuration_is_refused(hub: FakeRegistry, tmp_path: Path) -> None:
    """The file no longer suits: the old program goes on with the configuration that it has."""
    async with fleet(tmp_path, hub.url, 1) as mirror:
        before = await mirror.workers()
        await asyncio.to_thread(mirror.configure, 1, "header_timeout = -1")
        await _hand_over(mirror)
        assert "header_timeout: must be more than 0" in await mirror.logged()
        assert await mirror.workers() == before
        assert (await get(mirror.address, "/v2/")).status == 200


async def _pull_over(hub: FakeRegistry, layer: Digest, pull: Awaitable[str], deploy: Awaitable[None]) -> str:
    """Pull while the large layer stands still in its middle and a deploy begins; return the complaint."""
    gate = hub.hold(layer, after=HALF)
    pulling = asyncio.ensure_future(pull)
    await gate.reached.wait()
    deploying = asyncio.ensure_future(deploy)
    await asyncio.sleep(0)
    gate.release()
    await deploying
    return await pulling


async def _command(*command: str | Path) -> str:
    done = await asyncio.to_thread(attempt, command, None, PATIENCE * 3)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def crane(mirror: Fleet) -> Awaitable[str]:
    program = pinned()["crane"].folder / "crane"
    reference = f"{mirror.address}/docker.io/library/x:t"
    return _command(program, "pull", "--insecure", "--format=oci", reference, mirror.folder / "pulled")


@pytest.mark.skipif(not pinned()["crane"].installed, reason="crane is not installed: .ci/clients")
@pytest.mark.parametrize("change", [_reload, _hand_over], ids=["SIGHUP", "SIGUSR2"])
async def test_crane_survives_a_deploy(
    hub: FakeRegistry, tmp_path: Path, change: Callable[[Fleet], Awaitable[None]]
) -> None:
    """The first pull goes on over a reload, and over a newer program."""
    image = image_of(hub)
    async with fleet(tmp_path, hub.url, 1) as mirror:
        assert await _pull_over(hub, image.layers[0], crane(mirror), change(mirror)) == ""


@pytest.mark.skipif(not pinned()["crane"].installed, reason="crane is not installed: .ci/clients")
async def test_crane_survives_a_restart(hub: FakeRegistry, tmp_path: Path) -> None:
    """SIGTERM and a new start, with the socket of a service manager."""
    image = image_of(hub)
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, 1)
    activated = Activated(mirror)
    try:
        with activated.listening:
            await activated.start()
            assert await _pull_over(hub, image.layers[0], crane(mirror), activated.restart()) == ""
    finally:
        await mirror.close()


def unpackable(hub: FakeRegistry) -> Digest:
    """Add an image that containerd can unpack; return the digest of its layer."""
    layer = tar_of({"noise": random.Random("restarts").randbytes(LARGE)})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
    }
    data = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor("application/vnd.oci.image.config.v1+json", data),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    }
    hub.add_blob("library/x", data)
    hub.add_manifest("library/x", json.dumps(manifest).encode(), tag="t")
    return hub.add_blob("library/x", layer)


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


@pytest.mark.skipif(not pinned()["containerd"].installed, reason="containerd is not installed: .ci/clients")
@pytest.mark.parametrize("change", [_reload, _hand_over, None], ids=["SIGHUP", "SIGUSR2", "SIGTERM"])
async def test_containerd_survives_by_ranges(
    hub: FakeRegistry, tmp_path: Path, short: Path, change: Callable[[Fleet], Awaitable[None]] | None
) -> None:
    """Each range is a request of its own, many on new connections, and the deploy comes in their middle."""
    layer = unpackable(hub)
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, 1)
    activated, stack = Activated(mirror), ExitStack()
    try:
        await activated.start()
        programs = tool("containerd"), tool("containerd", "ctr")
        daemon = contextmanager(start_containerd)(mirror, short / "d", programs, NEW, RANGE)
        client = await asyncio.to_thread(stack.enter_context, daemon)
        hosts = ("--hosts-dir", client.folder / "ns")
        pull = client.command("images", "pull", "--snapshotter", "native", *hosts, "docker.io/library/x:t")
        deploy = activated.restart() if change is None else change(mirror)
        assert await _pull_over(hub, layer, _command(*pull), deploy) == ""
        ranges = [line for line in (await mirror.logged()).splitlines() if str(layer) in line]
        assert len(ranges) > LARGE // RANGE
    finally:
        await asyncio.to_thread(stack.close)
        activated.listening.close()
        await mirror.close()
