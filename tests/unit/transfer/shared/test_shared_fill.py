"""A fill with a shared tier; tests/contract/test_shared_tier.py has whole mirrors with real engines."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.engines import Engines
from mirror.shared.errors import TierError, TierFault
from mirror.shared.interfaces import TierRange, VerifiedContent
from mirror.shared.memory import MemoryLeases, MemoryTier
from mirror.transfer.transfer import Transfer
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE_DATA, Running, configured, serving
from tests.unit.shared.test_tier import fit
from tests.wire import get

DATA = LARGE_DATA
X = "/v2/docker.io/library/x"


@pytest.fixture
async def leases() -> MemoryLeases:
    return MemoryLeases()


@pytest.fixture
async def mirror(
    fake: FakeRegistry, leases: MemoryLeases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    """A mirror whose engines are in memory."""
    engines = Engines("s3://memory", MemoryTier(), leases, fit)
    monkeypatch.setattr("mirror.shared.engines.open_engines", lambda settings: engines)
    async with serving(
        configured(tmp_path, {"docker.io": fake.url}, shared={"url": "s3://memory"})
    ) as mirror:
        yield mirror


async def outcomes(mirror: Running) -> dict[str, float]:
    names = ("tier", "upstream", "alone")
    line = 'registry_mirror_shared_fills_total{{outcome="{}"}}'
    return {name: count for name in names if (count := await mirror.metric(line.format(name)))}


async def test_shared_fill_claims_what_the_tier_has_not(
    fake: FakeRegistry, mirror: Running, leases: MemoryLeases
) -> None:
    """While the upstream is asked, the claim is held: others are told who has it."""
    digest = fake.add_blob("library/x", DATA)
    gate = fake.hold(digest, after=-1)
    pulling = mirror.service._tasks.spawn(get(mirror.address, f"{X}/blobs/{digest}"), name="pull")
    await gate.reached.wait()
    assert await leases.holder(f"fill/sha256/{digest.encoded}") is not None
    gate.release()
    assert (await pulling).body == DATA
    await mirror.landed(digest)
    assert await outcomes(mirror) == {"upstream": 1}


async def test_shared_fill_that_fails_frees_its_claim(
    fake: FakeRegistry, mirror: Running, leases: MemoryLeases
) -> None:
    """A blob that the upstream has not got keeps nobody else from asking."""
    absent = Digest.of(b"absent")
    assert (await get(mirror.address, f"{X}/blobs/{absent}")).status == 404
    assert await leases.holder(f"fill/sha256/{absent.encoded}") is None
    assert await outcomes(mirror) == {}


async def test_shared_fill_of_what_another_fetches_goes_on_alone(
    fake: FakeRegistry, mirror: Running, leases: MemoryLeases
) -> None:
    """A mirror without the claim fetches too, and leaves the writing to the holder."""
    from mirror.shared.lease_text import new_holder

    digest, other = fake.add_blob("library/x", DATA), new_holder()
    await leases.acquire(f"fill/sha256/{digest.encoded}", other, 3600)
    assert (await get(mirror.address, f"{X}/blobs/{digest}")).body == DATA
    await mirror.landed(digest)
    assert await outcomes(mirror) == {"alone": 1}
    assert await leases.holder(f"fill/sha256/{digest.encoded}") == other


class Breaking(MemoryTier):
    """A store that breaks off each body in its middle."""

    @asynccontextmanager
    async def open_range(self, digest: Digest, span: Span) -> AsyncGenerator[TierRange]:
        async with super().open_range(digest, span) as part:
            yield TierRange(part.span, part.total, self._half(part))

    async def _half(self, part: TierRange) -> AsyncIterator[bytes]:
        async for chunk in part.chunks:
            yield chunk[: len(chunk) // 2]
        raise TierError(TierFault.UNREACHABLE, "the store was killed")


async def test_shared_fill_goes_on_upstream_when_the_store_breaks_off(
    fake: FakeRegistry, leases: MemoryLeases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pauses: None
) -> None:
    """The client notices nothing; the upstream is asked for the rest, by the one that has the claim then."""
    monkeypatch.setattr("mirror.shared.health.FIRST_PAUSE", 3600.0)  # not asked again in this test
    objects, digest = Breaking(), fake.add_blob("library/x", DATA)

    async def chunks() -> AsyncIterator[bytes]:
        yield DATA

    await objects.put(VerifiedContent(digest, len(DATA), chunks))
    engines = Engines("s3://memory", objects, leases, fit)
    monkeypatch.setattr("mirror.shared.engines.open_engines", lambda settings: engines)
    config = configured(tmp_path, {"docker.io": fake.url}, shared={"url": "s3://memory"})
    async with serving(config) as mirror:
        while not mirror.service.shared or not mirror.service.shared.tier.usable:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await get(mirror.address, f"{X}/blobs/{digest}")).body == DATA
        await mirror.landed(digest)
        assert fake.requests("GET", digest) >= 1
        assert "was killed" in str(mirror.service.state.shared())


class Held(MemoryTier):
    """A store that sends nothing of one blob until `go`; it notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Digest | None = None
        self.go = asyncio.Event()
        self.fails = False  # then, in place of the blob
        self.asked: list[Digest] = []

    @asynccontextmanager
    async def open_range(self, digest: Digest, span: Span) -> AsyncGenerator[TierRange]:
        self.asked.append(digest)
        async with super().open_range(digest, span) as part:
            if digest == self.held:
                await self.go.wait()
                if self.fails:
                    raise TierError(TierFault.UNREACHABLE, "gone")
            yield part


@pytest.mark.parametrize("fails", [False, True])
async def test_shared_fill_of_a_prefetch_waits_for_what_a_client_reads(
    fake: FakeRegistry, leases: MemoryLeases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A client whose line is no faster than that of the store never gets back the time that it waits.

    Not for a blob that comes from the upstream, once the store has failed.
    """
    objects, layers = Held(), [DATA, DATA[::-1]]
    objects.fails = fails
    image = fake.add_image("library/x", "t", layers)

    async def chunks(data: bytes) -> AsyncIterator[bytes]:
        yield data

    for digest, data in zip(image.layers, layers, strict=True):
        await objects.put(VerifiedContent(digest, len(data), partial(chunks, data)))
    objects.held = image.layers[0]
    engines = Engines("s3://memory", objects, leases, fit)
    monkeypatch.setattr("mirror.shared.engines.open_engines", lambda settings: engines)
    shared = {"url": "s3://memory", "timeout": "1h"}
    config = configured(tmp_path, {"docker.io": fake.url}, shared=shared, fill={"prefetch": "layer"})
    async with serving(config) as mirror:
        while not mirror.service.shared or not mirror.service.shared.tier.usable:  # noqa: ASYNC110
            await asyncio.sleep(0)
        turns, waiting = mirror.service.shared.turns, asyncio.Event()
        waits = turns.wait

        async def watched(transfer: Transfer) -> None:
            if turns.must_wait(transfer):
                waiting.set()
            await waits(transfer)

        monkeypatch.setattr(turns, "wait", watched)
        await get(mirror.address, f"{X}/manifests/t")
        pulling = mirror.service._tasks.spawn(
            get(mirror.address, f"{X}/blobs/{image.layers[0]}"), name="pull"
        )
        await waiting.wait()
        assert image.layers[1] not in objects.asked
        gate = fake.hold(image.layers[0], after=-1)
        objects.go.set()
        if fails:
            await gate.reached.wait()
            await mirror.landed(image.layers[1])
        gate.release()
        assert (await pulling).body == DATA
        await mirror.landed(image.layers[1])
        assert fails or image.layers[1] in objects.asked
        assert fails or await outcomes(mirror) == {"tier": 2}
