"""Several workers as processes: one cache, one download, no connection dropped."""

import asyncio
import os
import random
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.e2e.fleet import Fleet, fleet
from tests.e2e.processes import await_end
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.running import CHUNK, LARGE, LARGE_DATA
from tests.wire import Wire, get

pytestmark = pytest.mark.slow

BIG = LARGE_DATA
HALF = LARGE // 2
MANIFEST = len(FakeRegistry().add_image("library/x", "t", [BIG]).manifest_data)

RECEIVED = 'registry_mirror_upstream_bytes_total{upstream="docker.io"}'

# As systemd starts a service with a socket unit: descriptor 3 is the socket, and LISTEN_* announce it.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as hub:
        yield hub


async def layer_of(hub: FakeRegistry, mirror: Fleet) -> Digest:
    """Return the large layer of an image whose manifest the mirror has cached."""
    image = hub.add_image("library/x", "t", [BIG])
    assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
    return image.layers[0]


def path_of(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


async def test_workers_share_one_download(hub: FakeRegistry, tmp_path: Path) -> None:
    """Clients of each worker ask for one cold blob: upstream is asked once, and all receive it meanwhile."""
    async with fleet(tmp_path, hub.url, 3) as mirror, AsyncExitStack() as stack:
        digest = await layer_of(hub, mirror)
        gate = hub.hold(digest, after=HALF)
        wires = []
        for worker in await mirror.workers():
            for _ in range(4):
                wires.append(await stack.enter_async_context(await mirror.connect(worker)))
        for wire in wires:
            wire.send("GET", path_of(digest))
        for wire in wires:
            assert (await wire.head()).status == 200
            assert await wire.reader.readexactly(HALF - CHUNK) == BIG[: HALF - CHUNK]
        gate.release()
        for wire in wires:
            assert await wire.reader.readexactly(LARGE - HALF + CHUNK) == BIG[HALF - CHUNK :]
        assert (hub.requests("GET", digest), hub.requests("HEAD", digest)) == (1, 0)
        for worker in await mirror.workers():  # each worker reports the sum of all
            async with await mirror.connect(worker) as wire:
                assert await mirror.metric(RECEIVED, wire) == LARGE + MANIFEST


async def test_workers_finish_the_download_of_a_killed_one(hub: FakeRegistry, tmp_path: Path) -> None:
    """After kill -9 in mid-blob clients of other workers have all of it; no byte on disk is fetched again."""
    async with fleet(tmp_path, hub.url, 3) as mirror, AsyncExitStack() as stack:
        digest = await layer_of(hub, mirror)
        gate = hub.hold(digest, after=HALF)
        first, *others = await mirror.workers()
        wire = await stack.enter_async_context(await mirror.connect(first))
        wire.send("GET", path_of(digest))
        await gate.reached.wait()
        wires = []
        for worker in others * 3:
            wires.append(await stack.enter_async_context(await mirror.connect(worker)))
            wires[-1].send("GET", path_of(digest))
        for each in wires:
            assert (await each.head()).status == 200
            assert await each.reader.readexactly(HALF - CHUNK) == BIG[: HALF - CHUNK]
        assert await mirror.filling(digest) == first
        received = await mirror.metric(RECEIVED)
        os.kill(first, signal.SIGKILL)
        for each in wires:
            assert await each.reader.readexactly(LARGE - HALF + CHUNK) == BIG[HALF - CHUNK :]
        ranges = [seen.headers.get("Range") for seen in hub.log if str(digest) in seen.path]
        begin = int(str(ranges[1]).removeprefix("bytes=").partition("-")[0])
        assert len(ranges) == 2
        assert HALF - CHUNK <= begin <= HALF
        await mirror.until(lambda pids: len(pids) == 3 and first not in pids, "a worker in its place")
        assert (await get(mirror.address, path_of(digest))).body == BIG
        # The killed worker's counters are kept; only bytes that it had not yet written came twice.
        assert await mirror.metric(RECEIVED) == received + LARGE - begin
        assert LARGE <= received + LARGE - begin <= LARGE + CHUNK + MANIFEST


async def test_workers_share_the_parts_of_a_blob(hub: FakeRegistry, tmp_path: Path) -> None:
    """Parts that clients of two workers read, the end too, are asked for once; then one reads all of it."""
    data = random.Random("parts").randbytes(100 * CHUNK)
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, 2)
    try:
        await mirror.start(
            ["env", "REGISTRY_MIRROR_FILL_REST=never", "REGISTRY_MIRROR_FILL_PARALLEL_ABOVE=1MiB"]
        )
        await mirror.notified("READY=1")
        layer = hub.add_image("library/x", "t", [data]).layers[0]
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
        wires = [await mirror.connect(worker) for worker in await mirror.workers()]
        parts = [range(2), range(len(data) - 51, len(data)), range(50 * CHUNK, 52 * CHUNK)]
        for part in parts:
            for wire in wires:
                wire.send("GET", path_of(layer), [f"Range: bytes={part.start}-{part.stop - 1}"])
            for wire in wires:
                assert (await wire.reply()).body == data[part.start : part.stop]
        asked = [
            seen.headers["Range"] for seen in hub.log if seen.method == "GET" and str(layer) in seen.path
        ]
        assert sorted(asked) == sorted(
            f"bytes={start * CHUNK}-{stop * CHUNK - 1}" for start, stop in ((0, 1), (99, 100), (50, 52))
        )
        for wire in reversed(wires):
            wire.send("GET", path_of(layer))
        for wire in reversed(wires):
            assert (await wire.reply()).body == data
            wire.writer.close()
        assert await mirror.metric(RECEIVED) == len(data) + MANIFEST
    finally:
        await mirror.close()


async def test_reload_drops_no_connection(hub: FakeRegistry, tmp_path: Path) -> None:
    """Reloads under load, to more workers and fewer, spare new and kept connections and a long response."""
    async with fleet(tmp_path, hub.url, 2) as mirror, AsyncExitStack() as stack:
        digest = await layer_of(hub, mirror)
        gate = hub.hold(digest, after=HALF)
        old = await mirror.workers()
        long = await stack.enter_async_context(await mirror.connect(old[0]))
        long.send("GET", path_of(digest))
        await gate.reached.wait()
        over = asyncio.Event()
        clients = [asyncio.ensure_future(_ask_on(mirror, over, kept=number % 2 == 0)) for number in range(8)]
        for workers in (3, 1, 2):
            await asyncio.to_thread(mirror.configure, workers)
            mirror.signal(signal.SIGHUP)
            await mirror.notified("RELOADING=1", "READY=1")
        over.set()
        asked = await asyncio.gather(*clients)
        assert min(asked) > 0
        gate.release()
        assert (await long.reply()).body == BIG
        await mirror.until(lambda pids: len(pids) == 2 and not {*pids} & {*old}, "the old workers' end")


async def _ask_on(mirror: Fleet, over: asyncio.Event, *, kept: bool) -> int:
    """Ask until `over`, on a connection `kept` as long as offered, or on many; return how often."""
    asked = 0
    while not over.is_set():
        async with await Wire.open(mirror.address) as wire:
            more = True
            while more and not over.is_set():
                wire.send("GET", "/v2/library/x/manifests/t")
                reply = await wire.reply()
                assert (reply.status, reply.complete) == (200, True)
                asked += 1
                more = kept and reply.headers.get("connection") != "close"
    return asked


async def test_reload_refuses_a_wrong_configuration(hub: FakeRegistry, tmp_path: Path) -> None:
    """The log has the reason, and the workers stay."""
    async with fleet(tmp_path, hub.url, 2) as mirror:
        before = await mirror.workers()
        await asyncio.to_thread(mirror.configure, 2, "header_timeout = -1")
        mirror.signal(signal.SIGHUP)
        await mirror.notified("RELOADING=1", "READY=1")
        assert "header_timeout: must be more than 0" in await mirror.logged()
        assert await mirror.workers() == before
        assert (await get(mirror.address, "/v2/")).status == 200


RULES = """
[[rule]]
name = "nothing"
effect = "deny"
"""


@pytest.mark.parametrize("workers", [1, 2])
async def test_reload_ends_a_right_on_connections_that_stay_open(
    hub: FakeRegistry, tmp_path: Path, workers: int
) -> None:
    """The next request is judged by the new rules, although its answer was remembered by the old ones."""
    hub.add_image("library/x", "t", [b"layer"])
    path = "/v2/docker.io/library/x/manifests/t"
    async with fleet(tmp_path, hub.url, workers) as mirror, await Wire.open(mirror.address) as wire:
        for _ in range(4):
            wire.send("GET", path)
            assert (await wire.reply()).status == 200
        await asyncio.to_thread(mirror.configure, workers, after=RULES)
        mirror.signal(signal.SIGHUP)
        await mirror.notified("RELOADING=1", "READY=1")
        wire.send("GET", path)
        reply = await wire.reply()
        assert (reply.status, reply.header("connection")) == (403, "close")
        assert (await get(mirror.address, path)).status == 403


@pytest.mark.parametrize("workers", [1, 2])
async def test_reload_takes_up_a_renewed_certificate(hub: FakeRegistry, tmp_path: Path, workers: int) -> None:
    """SIGHUP renews it for new connections, with one process or several; open connections stay."""
    old, new = await asyncio.to_thread(_authorities, tmp_path)
    file = tmp_path / "server.pem"
    await asyncio.to_thread(file.write_bytes, await asyncio.to_thread(old.server_file.read_bytes))
    tls = f'tls_certificate = "{file}"\ntls_key = "{file}"'
    async with fleet(tmp_path, hub.url, workers, tls) as mirror:
        wire = await Wire.open(mirror.address, _trusting(old))
        async with wire:
            await asyncio.to_thread(file.write_bytes, await asyncio.to_thread(new.server_file.read_bytes))
            before = await mirror.workers()
            mirror.signal(signal.SIGHUP)
            if workers > 1:
                await mirror.notified("RELOADING=1", "READY=1")
                await mirror.stop_accepting(before)
            while True:
                try:
                    (await Wire.open(mirror.address, _trusting(new))).writer.close()
                    break
                except ssl.SSLCertVerificationError:
                    assert workers == 1  # one process gives no sign when it is done
            wire.send("GET", "/v2/")
            assert (await wire.reply()).status == 200


async def test_reload_takes_up_revoked_certificates(hub: FakeRegistry, tmp_path: Path) -> None:
    """SIGHUP has the list of `client_crl` read again: a client that was let in before is refused."""
    authority, _ = await asyncio.to_thread(_authorities, tmp_path)
    contexts = {name: await asyncio.to_thread(_shown, authority, tmp_path, name) for name in "ab"}
    crl, files = tmp_path / "crl", (authority.server_file, authority.server_file, authority.ca_file)
    lines = [
        f'{key} = "{file}"'
        for key, file in zip(("tls_certificate", "tls_key", "client_ca"), files, strict=True)
    ]
    await asyncio.to_thread(authority.revoke, crl, tmp_path / "a.crt")
    async with fleet(tmp_path, hub.url, 2, "\n".join([*lines, f'client_crl = "{crl}"'])) as mirror:
        for refused, taken in ("ab", "ba"):
            async with await Wire.open(mirror.address, contexts[taken]) as wire:
                wire.send("GET", "/v2/")
                assert (await wire.reply()).status == 200
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with await Wire.open(mirror.address, contexts[refused]) as wire:
                    await wire.reader.readexactly(1)
            await asyncio.to_thread(authority.revoke, crl, tmp_path / "b.crt")
            before = await mirror.workers()
            mirror.signal(signal.SIGHUP)
            await mirror.notified("RELOADING=1", "READY=1")
            await mirror.stop_accepting(before)
        assert (await mirror.logged()).count("it is revoked") == 2


def _shown(authority: Authority, folder: Path, name: str) -> ssl.SSLContext:
    context = authority.client_context()
    context.load_cert_chain(*authority.issue(folder, name))
    return context


def _authorities(folder: Path) -> tuple[Authority, Authority]:
    for name in ("old", "new"):
        (folder / name).mkdir()
    return Authority(folder / "old"), Authority(folder / "new")


def _trusting(authority: Authority) -> ssl.SSLContext:
    return authority.client_context()


@pytest.mark.parametrize("workers", [1, 2])
async def test_socket_activation_upgrade_drops_no_connection(
    hub: FakeRegistry, tmp_path: Path, workers: int
) -> None:
    """The service manager keeps the socket: a client that comes between two mirrors waits for the second."""
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, workers)
    try:
        with socket.create_server(("127.0.0.1", mirror.port)) as listening:
            number = listening.fileno()
            for _ in range(2):
                waiting = asyncio.ensure_future(get(mirror.address, "/v2/"))
                await mirror.start([sys.executable, "-c", ACTIVATE, str(number)], [number])
                await mirror.notified("READY=1")
                assert (await waiting).status == 200
                mirror.signal(signal.SIGTERM)
                assert await mirror.exit_status() == 0
                await mirror.notified("STOPPING=1")
    finally:
        await mirror.close()


async def test_workers_do_not_outlive_their_parent(hub: FakeRegistry, tmp_path: Path) -> None:
    """After kill -9 of the parent the workers finish and leave the address to the next parent."""
    async with fleet(tmp_path, hub.url, 2) as mirror:
        workers = await mirror.workers()
        mirror.signal(signal.SIGKILL)
        await mirror.exit_status()
        for worker in workers:
            await asyncio.to_thread(await_end, worker)
        await mirror.start()
        await mirror.notified("READY=1")


async def test_workers_that_cannot_start_end_the_parent(hub: FakeRegistry, tmp_path: Path) -> None:
    """The exit status is 1, and the log has the reason."""
    await asyncio.to_thread((tmp_path / "cache").write_text, "not a folder")
    mirror = await asyncio.to_thread(Fleet, tmp_path, hub.url, 2)
    await mirror.start()
    assert await mirror.exit_status() == 1
    assert "cannot use the cache folder" in await mirror.logged()
    await mirror.close()
