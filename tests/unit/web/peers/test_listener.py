"""The listener for other mirrors: who is refused, and what a mirror with the secret gets."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from mirror.access.peer_proof import ANSWER_HEADER, REQUEST_HEADER, PeerProof, subject
from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Link
from mirror.store.store import Store
from mirror.transfer.shared.leading import LeadingFills
from mirror.web.peers.listener import PIECE, SHORT_PIECE, PeerListener, Turns
from tests.wire import Reply, Wire

PROOF = PeerProof("a-secret-of-all-mirrors")
DATA = bytes(range(256)) * 8000
MOST = 4  # connections
DIGEST = Digest.of(DATA)


@pytest.fixture
async def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A listener of a mirror that has one blob."""
    monkeypatch.setattr("mirror.web.peers.listener.CONNECTIONS", MOST)
    store = await Store.open(tmp_path, CacheSettings(dir=tmp_path, min_free=Amount()))
    lease = await store.transfers.leases.acquire_blob(DIGEST)
    assert lease is not None
    await store.transfers.put_small_blob(Repository("u", "x"), lease, Content(Link(size=len(DATA)), DATA))
    listener = PeerListener(store, LeadingFills(), PROOF)
    yield (await listener.start("127.0.0.1:0")).removeprefix("http://")
    await listener.close()
    await store.close()


async def ask(
    address: str, *headers: str, path: str = f"/v2/peers/blobs/{DIGEST}", method: str = "GET"
) -> Reply:
    async with await Wire.open(address) as wire:
        wire.send(method, path, headers)
        return await wire.reply(method)


def proven(start: int = 0, digest: object = DIGEST, now: float | None = None) -> tuple[str, str]:
    """The header of a request, and its nonce."""
    header, nonce = PROOF.request(subject(str(digest), start), time.time() if now is None else now)
    return f"{REQUEST_HEADER}: {header}", nonce


async def test_peer_with_the_secret_gets_what_is_here(address: str) -> None:
    """The bytes are those between an offset and an end, with the proof of this side."""
    for span, data in (("5-", DATA[5:]), ("5-9", DATA[5:10])):
        header, nonce = proven(5)
        reply = await ask(address, header, f"Range: bytes={span}")
        assert (reply.status, reply.body, reply.complete) == (206, data, True)
        assert reply.header("content-range") == f"bytes 5-{4 + len(data)}/{len(DATA)}"
        assert PROOF.verify_answer(reply.header(ANSWER_HEADER), nonce, subject(str(DIGEST), 5))


async def test_peer_without_a_proof_is_refused(address: str) -> None:
    """No proof, another's, an old one, or one for another request: 403, and not a word."""
    other = PeerProof("another-secret-of-others").request(subject(str(DIGEST), 0), time.time())[0]
    for header in ("X-None: 1", f"{REQUEST_HEADER}: {other}", proven(now=0)[0], proven(1)[0]):
        reply = await ask(address, header, "Range: bytes=0-")
        assert (reply.status, reply.body) == (403, b"")
        assert ANSWER_HEADER.lower() not in reply.headers


async def test_peer_gets_nothing_else(address: str) -> None:
    """Other paths, methods and ranges are not served; a blob that is not here is another process's."""
    absent = Digest.of(b"absent")
    assert (await ask(address, proven()[0])).status == 404
    assert (await ask(address, proven()[0], "Range: bytes=-5")).status == 404
    assert (await ask(address, proven()[0], "Range: bytes=0-", method="PUT")).status == 404
    assert (await ask(address, proven()[0], "Range: bytes=0-", path="/v2/")).status == 404
    assert (await ask(address, proven()[0], "Range: bytes=0-", path="/readyz")).status == 404
    short = f"/v2/peers/blobs/{str(DIGEST)[:-1]}"
    assert (await ask(address, proven(0, str(DIGEST)[:-1])[0], "Range: bytes=0-", path=short)).status == 404
    path = f"/v2/peers/blobs/{absent}"
    assert (await ask(address, proven(0, absent)[0], "Range: bytes=0-", path=path)).status == 421
    beyond = len(DATA)
    assert (await ask(address, proven(beyond)[0], f"Range: bytes={beyond}-")).status == 416


async def test_connections_of_anybody_are_bounded(address: str) -> None:
    """One connection more than the bound closes the one idle longest: a peer is not shut out."""
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await Wire.open(address)) for _ in range(MOST)]
        header, _ = proven()
        async with asyncio.timeout(60):
            assert (await ask(address, header, "Range: bytes=0-")).body == DATA
            assert await silent[0].reader.read() == b""


async def test_turns_are_for_some_at_a_time() -> None:
    """A third one waits until one of two has been sent its piece, and pieces are short meanwhile."""
    turns, gates, done = Turns(2, 60), [asyncio.Event() for _ in range(3)], asyncio.Event()
    sent: list[int] = []

    async def send(number: int) -> None:
        await gates[number].wait()
        sent.append(number)
        if sent == [1, 2]:
            done.set()

    async with asyncio.TaskGroup() as group:
        assert turns.piece == PIECE
        for number in range(3):
            group.create_task(turns.take(partial(send, number)))
        gates[2].set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert (sent, turns.piece) == ([], SHORT_PIECE)
        gates[1].set()
        await done.wait()
        assert turns.piece == PIECE
        gates[0].set()


async def test_turn_of_a_slow_mirror_ends() -> None:
    """One that takes its piece slowly keeps it, and others are sent theirs; errors are the sending's."""
    turns, gate = Turns(1, 0.0), asyncio.Event()

    async def send() -> None:
        await gate.wait()
        raise ConnectionResetError

    async with asyncio.TaskGroup() as group:
        slow = group.create_task(_expect_reset(turns.take(send)))
        await turns.take(partial(asyncio.sleep, 0))
        assert not slow.done()
        gate.set()


async def _expect_reset(sending: Awaitable[None]) -> None:
    with pytest.raises(ConnectionResetError):
        await sending


async def test_turn_that_is_cancelled_is_another_ones() -> None:
    """A mirror that leaves in its turn keeps nobody from it, and its write ends."""
    turns, ended = Turns(1, 60), asyncio.Event()

    async def send() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(turns.take(send))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await turns.take(partial(asyncio.sleep, 0))
    await ended.wait()


@pytest.mark.filterwarnings("error")
async def test_turn_that_never_came_begins_no_write() -> None:
    """No coroutine is left over, of which Python would warn."""
    turns, sent = Turns(1, 60), asyncio.Event()

    async def send() -> None:
        await sent.wait()

    holder = asyncio.ensure_future(turns.take(send))
    waiting = asyncio.ensure_future(turns.take(partial(pytest.fail, "a write without a turn")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    sent.set()
    await holder
