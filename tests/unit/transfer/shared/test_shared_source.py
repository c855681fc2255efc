"""The shared tier as a source: in front of an upstream, for one blob, until it fails."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.content import verified
from mirror.shared.interfaces import TierRange
from mirror.shared.memory import MemoryLeases
from mirror.shared.tier import SharedTier
from mirror.transfer.shared.coordination import Coordination
from mirror.transfer.shared.shared_source import (
    LEAST_SPAN,
    MOST_SPAN,
    ROUND_TRIPS,
    SharedSource,
    SharedUpstream,
    TierClient,
)
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.registry_client import RegistryClient
from mirror.upstream.source import Source, SourceOptions
from mirror.upstream.upstream import Upstream
from mirror.util.slots import SlotPool
from mirror.util.tasks import Tasks
from tests.unit.shared.test_tier import DATA, DIGEST, chunks, started, tier_of


async def tier(leases: MemoryLeases | None = None) -> SharedTier:
    """A tier with one blob."""
    tier = await started(tier_of(leases=leases, limit=5))
    await tier.publish(verified(DIGEST, len(DATA), chunks))
    return tier


def source_of(shared: SharedTier, digest: Digest = DIGEST) -> SharedSource:
    coordination = Coordination(shared, digest, lambda _: shared.usable, follows=False)
    return SharedSource(TierClient(shared, Metrics()), coordination, None, SlotPool(4))


def upstream(tasks: Tasks) -> Upstream:
    settings = UpstreamSettings(name="u", url="http://127.0.0.1:9")
    own = Source("own", RegistryClient(settings, Metrics()), SourceOptions(), SlotPool(4))
    return Upstream("u", [own], tasks, Metrics())


async def read(source: SharedSource, digest: Digest, span: tuple[int, int | None]) -> bytes:
    async with source.open_blob("any/repository", digest, span, DirectLocation()) as body:
        return b"".join([chunk async for chunk in body.chunks()])


async def test_shared_source_gives_blobs_and_parts() -> None:
    """Whole or by a range, whatever the repository is called."""
    shared = await tier()
    source = source_of(shared)
    assert await read(source, DIGEST, (0, None)) == DATA
    assert await read(source, DIGEST, (3, 9)) == DATA[3:9]
    async with source.open_blob("x", DIGEST, (0, 5), DirectLocation()) as body:
        assert (body.whole, body.total) == (False, len(DATA))
    await shared.close()


async def test_shared_source_without_the_blob_is_no_answer_of_a_registry() -> None:
    """The failure excludes the source at once: it is neither temporary, nor final, nor about ranges."""
    leases = MemoryLeases()
    shared, absent = await tier(leases), Digest.of(b"absent")
    with pytest.raises(UpstreamError) as caught:
        await read(source_of(shared, absent), absent, (0, 10))
    error = caught.value
    assert (error.failure, error.temporary, error.final) == (Failure.OFFLINE, False, False)
    assert await leases.holder(f"fill/sha256/{absent.encoded}") is not None  # it has the claim now
    await shared.close()


async def test_shared_upstream_prefers_the_tier(tasks: Tasks) -> None:
    """The tier is the only usable source for its blob, and speaks for nothing; wrong bytes end that."""
    shared, base = await tier(), upstream(tasks)
    source = source_of(shared)
    tiered = SharedUpstream(base, source)
    assert tiered.usable_sources() == [source]
    assert tiered.best_speakers() == base.best_speakers() == [base.own]
    assert list(tiered.sources) == [base.own, source]
    assert tiered.uses_account("x") is False
    source.report_corruption(str(DIGEST))
    assert source.is_wrong
    assert tiered.usable_sources() == [base.own]
    await shared.close()
    await base.close()


async def test_spans_of_the_store_last_some_round_trips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of a near store are short, and those of a far one as long as any."""
    shared, now = await tier(), [0.0]
    source = source_of(shared)
    assert source.store_span == 0  # nothing says yet where the blob is
    monkeypatch.setattr("mirror.transfer.shared.shared_source.time.monotonic", lambda: now[0])
    opened, takes = shared.open_range, [0.0]

    @asynccontextmanager
    async def slow(digest: Digest, span: Span) -> AsyncGenerator[TierRange]:
        now[0] += takes[0]
        async with opened(digest, span) as part:
            yield part

    monkeypatch.setattr(shared, "open_range", slow)
    found = []
    for seconds in (1.0, 0.05, 0.001):
        takes[0] = seconds
        await read(source, DIGEST, (0, None))
        found.append(source.store_span)
    assert found == [MOST_SPAN, pytest.approx(0.05 * ROUND_TRIPS), LEAST_SPAN]
    await shared.close()
