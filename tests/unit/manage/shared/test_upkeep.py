"""Upkeep of the shared tier, on engines in memory."""

from collections.abc import AsyncIterator

from mirror.manage.shared.upkeep import collect, examine, wrong_blobs
from mirror.oci.digest import Digest
from mirror.shared.engines import Engines
from mirror.shared.interfaces import VerifiedContent
from mirror.shared.memory import MemoryLeases, MemoryObjects, MemoryTier
from mirror.shared.upkeep.plan import TierLimits
from tests.unit.shared.test_tier import fit


async def put(tier: MemoryTier, data: bytes, digest: Digest | None = None) -> Digest:
    """Put bytes under a digest, unverified."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    digest = digest or Digest.of(data)
    await tier.put(VerifiedContent(digest, len(data), chunks))
    return digest


async def test_upkeep_counts_and_finds() -> None:
    """The report has what is stored; wrong and old blobs are found, and no others."""
    now = 100.0
    tier = MemoryTier(lambda: now)
    engines = Engines("s3://b", tier, MemoryLeases(), fit, small=MemoryObjects())
    right = await put(tier, b"right")
    wrong = await put(tier, b"wrong", Digest.of(b"other"))
    now = 200.0
    await put(tier, b"new")
    report = await examine(engines)
    assert (report.bucket, report.reads, report.leases) == ("s3://b", None, None)
    assert (report.blobs, report.size) == (3, 13)
    assert [each.digest async for each in wrong_blobs(engines)] == [wrong]
    limits = TierLimits(age=50.0, grace=50.0)
    for dry in (True, False):
        found = await collect(engines, limits, dry=dry, clock=lambda: 200.0)
        assert {each.digest for each in found} == {right, wrong}
    assert (await examine(engines)).blobs == 1
