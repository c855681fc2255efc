"""Sweeping of uploads that have not ended."""

from collections.abc import AsyncIterator

from mirror.oci.digest import Digest
from mirror.shared.keys import fill_key
from mirror.shared.lease_text import new_holder
from mirror.shared.memory import MemoryLeases
from mirror.shared.upkeep import sweeper
from mirror.shared.upkeep.open_uploads import OpenUpload
from mirror.shared.upkeep.sweeper import OLD_SECONDS, UploadSweeper

DIGESTS = [Digest.of(bytes([number])) for number in range(4)]


class Uploads:
    """A list in memory."""

    def __init__(self, *ages: float) -> None:
        self.possible = True
        self.open = [OpenUpload(DIGESTS[number], "k", str(number), age) for number, age in enumerate(ages)]

    async def list(self) -> AsyncIterator[OpenUpload]:
        for each in tuple(self.open):
            yield each

    async def abort(self, upload: OpenUpload) -> None:
        self.open.remove(upload)


async def test_sweeper_removes_old_uploads_that_no_mirror_feeds() -> None:
    """A young one stays, and an old one whose blob is being filled."""
    uploads, leases = Uploads(OLD_SECONDS + 1, OLD_SECONDS - 1, OLD_SECONDS * 30), MemoryLeases()
    holder = new_holder()
    await leases.acquire(fill_key(DIGESTS[2]), holder, 60)
    keeper = UploadSweeper(uploads, leases)
    assert await keeper.sweep() == 1
    assert [each.upload for each in uploads.open] == ["1", "2"]
    await leases.release(fill_key(DIGESTS[2]), holder)
    assert await keeper.sweep() == 1
    assert [each.upload for each in uploads.open] == ["1"]


async def test_sweeper_without_keys_asks_nothing() -> None:
    """A list that cannot be had stays as it is."""
    uploads = Uploads(OLD_SECONDS + 1)
    uploads.possible = False
    assert await UploadSweeper(uploads, MemoryLeases()).sweep() == 0
    assert len(uploads.open) == 1


async def test_sweeper_goes_on_the_next_time(monkeypatch: object) -> None:
    """One sweep is bounded."""
    uploads = Uploads(*[OLD_SECONDS + 1] * 4)
    most, sweeper.MOST_SWEPT = sweeper.MOST_SWEPT, 3
    try:
        assert await UploadSweeper(uploads, MemoryLeases()).sweep() == 3
        assert await UploadSweeper(uploads, MemoryLeases()).sweep() == 1
    finally:
        sweeper.MOST_SWEPT = most
