"""Use of the disk through the facade."""

from mirror.manage.management import Management
from mirror.oci.image_pattern import ImagePattern


async def test_management_counts_usage(management: Management) -> None:
    """All with their upstreams, or those that match."""
    names = [each.name async for each in management.disk.usage()]
    assert names == ["docker.io/library/x", "docker.io", "quay.io/org/y", "quay.io"]
    assert [each.name async for each in management.disk.usage(ImagePattern.parse("quay.io/*"))] == [
        "quay.io/org/y"
    ]
    totals = await management.disk.totals()
    assert (totals.count, totals.blobs > 6000, totals.pinned, totals.scrub) == (9, True, 0, None)
