"""Downloads that no client waits for: bounded in number, behind the others, and gone without a trace."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.util.slots import WAITING_PER_SLOT
from tests.fakes.content import some_layers
from tests.fakes.faults import Fault, Gate
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, LARGE_DATA, Running, configured, mirror_of, serving
from tests.wire import Wire, get

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pauses")]

BLOB = LARGE_DATA
# Addresses of a client that floods, and of another one.
FLOOD, OTHER = "127.0.0.2", "127.0.0.3"
# Requests for unknown digests at a time: what one client may ask for over many connections.
BATCH = 100
# Descriptors that come with use, whatever is asked for: of the index, and of connections kept for reuse.
SPARE = 32


def path_of(digest: Digest, repository: str = "library/x") -> str:
    return f"/v2/docker.io/{repository}/blobs/{digest}"


def unknown(count: int) -> list[Digest]:
    return [Digest.of(f"nobody has {n}".encode()) for n in range(count)]


def large(fake: FakeRegistry, count: int) -> list[Digest]:
    """Add blobs that are larger than the holdback."""
    return [fake.add_blob("library/x", BLOB + b"layer %d" % n) for n in range(count)]


async def small_mirror(stack: AsyncExitStack, fake: FakeRegistry, cache: Path, **fill: Any) -> Running:
    """Start a mirror with eight connections for blobs: seven for any, one for urgent downloads."""
    return await stack.enter_async_context(
        mirror_of(fake, cache, fill={"connections": 8, "parallel": 1, **fill})
    )


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        yield await small_mirror(stack, fake, tmp_path / "cache")


@asynccontextmanager
async def asking(
    mirror: Running, digests: Sequence[Digest], client: str | None = None
) -> AsyncIterator[list[Wire]]:
    """Clients that have asked for these blobs, each over a connection of its own; at the end they leave.

    `client`: their address.
    """
    async with AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(await Wire.open(mirror.address, client=client)) for _ in digests
        ]
        for wire, digest in zip(wires, digests, strict=True):
            wire.send("GET", path_of(digest))
        yield wires


async def until(condition: Any) -> None:
    """Let the loop run until `condition` is true; no event tells."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def flights(mirror: Running) -> dict[Digest, Any]:
    return mirror.service.cache._blobs._flights._running


def fills(mirror: Running) -> list[str]:
    names = (task.get_name() for task in mirror.service._tasks._running)
    return [name for name in names if name.startswith(("fill ", "receive ", "verify ", "prepare "))]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def partials(mirror: Running) -> list[str]:
    return await asyncio.to_thread(os.listdir, mirror.config.cache.dir / "partial")


async def test_abandoned_requests_leave_nothing_behind(fake: FakeRegistry, mirror: Running) -> None:
    """3,000 requests for digests that nobody has, from clients that leave: no task, descriptor or file stays.

    The upstream answers none of them. Meanwhile at most eight of them have files.
    """
    fake.add_blob("library/x", b"exists")
    fake.fault(Fault(hold=Gate(), after=-1), "sha256", "GET", times=3000)
    await get(mirror.address, "/v2/")
    before = await asyncio.to_thread(descriptors)
    digests = unknown(3000)
    for start in range(0, len(digests), BATCH):
        async with asking(mirror, digests[start : start + BATCH]):
            await until(lambda: len(flights(mirror)) >= 8)
            assert len(await partials(mirror)) <= 2 * 8
        await until(lambda: not flights(mirror) and not fills(mirror))
    assert await partials(mirror) == []
    # The mirror's index has one descriptor more for each disk thread that has been used meanwhile.
    assert await asyncio.to_thread(descriptors) <= before + SPARE


async def test_abandoned_layers_give_way_to_a_client(fake: FakeRegistry, mirror: Running) -> None:
    """120 layers that one client asked for and left do not delay another client's cold blob.

    By the order of upstream requests: before the blob's come at most those that were on their way, one for
    each connection. The upstream is as slow as can be: no abandoned layer gets beyond its half.
    """
    layers, blob = unknown(120), fake.add_blob("library/y", BLOB)
    fake.repository("library/x").blobs.update((str(layer), BLOB) for layer in layers)  # never sent whole
    fake.fault(Fault(hold=Gate(), after=LARGE // 2), "library/x", "GET", times=1000)
    async with asking(mirror, layers) as wires:
        await until(lambda: fake.requests("GET", "library/x") == 8)
        heads = [wire for wire, layer in zip(wires, layers, strict=True) if fake.requests("GET", layer)]
        for wire in heads:
            assert (await wire.head()).status == 200
    await until(lambda: not any(flight.clients for flight in flights(mirror).values()))
    asked = len(fake.log)
    reply = await get(mirror.address, path_of(blob, "library/y"))
    assert (reply.status, reply.body) == (200, BLOB)
    assert [str(blob) in seen.path for seen in fake.log[asked:]].index(True) < 8


async def test_abandoned_layer_with_bytes_goes_on(fake: FakeRegistry, mirror: Running) -> None:
    """A fill with bytes that gave way is resumed where it stopped, once no client needs its connection."""
    layers, others = large(fake, 8), [fake.add_blob("library/y", BLOB + bytes([n])) for n in range(8)]
    for layer in layers:
        fake.fault(Fault(hold=Gate(), after=LARGE // 2), layer, "GET")
    gates = [fake.hold(other, after=1) for other in others]
    async with asking(mirror, layers) as wires:
        for wire in wires:
            assert (await wire.head()).status == 200
    clients = [asyncio.ensure_future(get(mirror.address, path_of(each, "library/y"))) for each in others]
    for gate in gates:
        await gate.reached.wait()
        gate.release()
    for reply in await asyncio.gather(*clients):
        assert reply.status == 200
    await until(lambda: not flights(mirror))
    for layer in layers:
        _, second = [seen.headers.get("Range") for seen in fake.log if str(layer) in seen.path]
        assert second is not None
        assert int(second.removeprefix("bytes=").partition("-")[0]) > 0
        assert (await get(mirror.address, path_of(layer))).complete
    assert await partials(mirror) == []


async def test_queue_of_downloads_is_bounded(fake: FakeRegistry, mirror: Running) -> None:
    """A request that finds the queue full is refused at once: 429 by name, else 404 with the reason."""
    fake.add_blob("library/x", b"exists")
    fake.fault(Fault(hold=Gate(), after=-1), "sha256", "GET", times=3000)
    async with asking(mirror, unknown(8 + WAITING_PER_SLOT * 8)):
        await until(lambda: len(flights(mirror)) == 8 + WAITING_PER_SLOT * 8)
        more = Digest.of(b"one too many")
        reply = await get(mirror.address, path_of(more))
        assert (reply.status, reply.header("retry-after")) == (429, "10")
        assert b"TOOMANYREQUESTS" in reply.body
        assert b"try again" in reply.body
        reply = await get(mirror.address, f"/v2/library/x/blobs/{more}")
        assert (reply.status, b"this mirror is busy" in reply.body) == (404, True)


async def test_downloads_of_one_client_make_room_for_another(fake: FakeRegistry, mirror: Running) -> None:
    """A client that fills the queue loses a place to another client, which has its turn before the others."""
    gate, digests = Gate(), unknown(8 + WAITING_PER_SLOT * 8)
    blob = fake.add_blob("library/x", BLOB)
    fake.fault(Fault(hold=gate, after=-1), "sha256", "GET", times=8)
    async with asking(mirror, digests, FLOOD) as wires:
        await until(lambda: len(flights(mirror)) == len(digests) and gate.waiting == 8)
        async with asking(mirror, [blob], OTHER) as others, asking(mirror, unknown(99)[-1:], FLOOD) as more:
            replies = [asyncio.ensure_future(wire.reply()) for wire in wires]
            await asyncio.wait(replies, return_when=asyncio.FIRST_COMPLETED)
            assert (await more[0].reply()).status == 429
            asked = len(fake.log)
            gate.release()
            assert (await others[0].reply()).body == BLOB
            paths = [seen.path for seen in fake.log[asked:] if "sha256" in seen.path]
            assert any(str(blob) in path for path in paths[:16])  # eight turns are free at once
            statuses = sorted([reply.status for reply in await asyncio.gather(*replies)])
            assert statuses == [404] * (len(wires) - 1) + [429]


async def test_time_limit_begins_after_the_queue(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that waits in the mirror's own queue gets no "no answer in time", and no breaker opens.

    The limit has passed when a client of another upstream, which is silent, gets that answer.
    """
    config = configured(
        tmp_path / "cache",
        {"docker.io": fake.url, "quay.io": other.url},
        fill={"connections": 1, "parallel": 1},
        server={"header_timeout": 5},
    )
    slow, blob = large(fake, 2)
    gate = fake.hold(slow, after=LARGE // 2)
    silent = other.hold("library/x", after=-1)
    async with serving(config) as mirror:
        first = asyncio.ensure_future(get(mirror.address, path_of(slow)))
        await gate.reached.wait()
        second = asyncio.ensure_future(get(mirror.address, path_of(blob)))
        await until(lambda: blob in flights(mirror) and flights(mirror)[blob].clients.queued)
        asking = asyncio.ensure_future(get(mirror.address, "/v2/quay.io/library/x/manifests/t"))
        await silent.reached.wait()
        loop, now = asyncio.get_running_loop(), asyncio.get_running_loop().time
        monkeypatch.setattr(loop, "time", lambda: now() + 6)
        late = await asking
        assert (late.status, b"in time" in late.body) == (504, True)
        assert not second.done()
        gate.release()
        assert [reply.status for reply in await asyncio.gather(first, second)] == [200, 200]
        assert [each["breaker"] for each in mirror.service.state.upstreams()["docker.io"]["sources"]] == [
            "closed"
        ]
        silent.release()


async def test_client_that_comes_back_is_first_again(fake: FakeRegistry, mirror: Running) -> None:
    """A fill that gave way and waits behind others becomes urgent when a client asks for it."""
    layers = large(fake, 8)
    for layer in layers:
        fake.fault(Fault(hold=Gate(), after=LARGE // 2), layer, "GET")
    async with asking(mirror, layers) as wires:
        for wire in wires:
            assert (await wire.head()).status == 200
    others = unknown(4)
    fake.fault(Fault(hold=Gate(), after=-1), "sha256", "GET", times=4)
    async with asking(mirror, others):
        await until(lambda: all(fake.requests("GET", other) for other in others))
        asked = len(fake.log)
        reply = await get(mirror.address, path_of(layers[-1]))
        assert (reply.status, reply.complete) == (200, True)
        assert str(layers[-1]) in fake.log[asked].path


async def test_two_mirrors_on_one_folder(fake: FakeRegistry, tmp_path: Path) -> None:
    """Clients of two mirrors leave: each mirror's own fills give way; a client of the other follows one."""
    async with AsyncExitStack() as stack:
        one, two = [await small_mirror(stack, fake, tmp_path / "cache") for _ in range(2)]
        layers, blob = large(fake, 16), fake.add_blob("library/y", BLOB)
        gates = [fake.hold(layer, after=LARGE // 2) for layer in layers]
        for mirror, part in ((one, layers[:8]), (two, layers[8:])):
            async with asking(mirror, part) as wires:
                for wire in wires:
                    assert (await wire.head()).status == 200
        asked = len(fake.log)
        replies = await asyncio.gather(
            *(get(mirror.address, path_of(blob, "library/y")) for mirror in (one, two))
        )
        assert str(blob) in fake.log[asked].path
        assert {(reply.status, reply.body) for reply in replies} == {(200, BLOB)}
        assert fake.requests("GET", blob) == 1
        # Its fill runs in `one`, for which no client waits: the client of `two` makes it urgent there.
        followed = asyncio.ensure_future(get(two.address, path_of(layers[0])))
        await until(lambda: layers[0] in flights(two))
        for gate in gates:
            gate.release()
        assert (await followed).complete


async def test_prefetched_layers_give_way_to_a_client(fake: FakeRegistry, tmp_path: Path) -> None:
    """Prefetches that hold all connections they may have do not delay a client either."""
    async with AsyncExitStack() as stack:
        mirror = await small_mirror(stack, fake, tmp_path / "cache", prefetch=8)
        image = fake.add_image("library/x", "t", some_layers(20, LARGE))
        blobs = [fake.add_blob("library/y", BLOB + bytes([n])) for n in range(4)]
        for layer in image.layers:
            fake.fault(Fault(hold=Gate(), after=CHUNK), layer, "GET", times=1000)
        await get(mirror.address, "/v2/docker.io/library/x/manifests/t")
        await until(lambda: sum(fake.requests("GET", layer) for layer in image.layers) == 7)
        asked = len(fake.log)
        replies = await asyncio.gather(*(get(mirror.address, path_of(each, "library/y")) for each in blobs))
        assert [reply.status for reply in replies] == [200] * 4
        assert sum("library/y" in seen.path for seen in fake.log[asked : asked + 8]) == 4
