"""The engines that the configuration names. Each library is imported here, and only where it is used."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.config.tier.shared import BUCKET_COORDINATOR, SharedSettings
from mirror.shared.bucket_records import BucketRecords
from mirror.shared.interfaces import ConditionalObjects, Leases, ObjectTier, Records
from mirror.shared.keys import MISSING
from mirror.shared.probe import Fitness, probe

if TYPE_CHECKING:
    from mirror.shared.upkeep.open_uploads import OpenUploads


class Engines(Struct, frozen=True):
    """An object store, a coordinator, and the probe of both. `name`: the bucket, for messages.

    `small`: small objects in the bucket. `records`: those in the bucket; `recent`: those of the coordinator,
    None where that is the bucket. `missing`: words in the bucket that there is no such tag. `uploads`: those
    that have not ended.
    """

    name: str
    objects: ObjectTier
    leases: Leases
    probe: Callable[[], Awaitable[Fitness]]
    records: BucketRecords | None = None
    recent: Records | None = None
    small: ConditionalObjects | None = None
    missing: BucketRecords | None = None
    uploads: "OpenUploads | None" = None

    async def close(self) -> None:
        """Close the connections of both."""
        await self.leases.close()
        await self.objects.close()


def open_engines(settings: SharedSettings) -> Engines:
    """Return the engines, without a connection yet. Call where a bucket is configured."""
    from mirror.shared.bucket_leases import BucketLeases
    from mirror.shared.s3 import S3Objects
    from mirror.shared.upkeep.open_uploads import OpenUploads

    bucket = settings.bucket
    if bucket is None:
        raise AssertionError("no bucket is configured")
    objects = S3Objects(settings, bucket)
    records, missing = BucketRecords(objects), BucketRecords(objects, MISSING)
    uploads = OpenUploads(settings, bucket)
    if settings.coordinator == BUCKET_COORDINATOR:
        fit = lambda: probe(objects, leases=True)  # noqa: E731
        leases = BucketLeases(objects)
        return Engines(objects.name, objects, leases, fit, records, None, objects, missing, uploads)
    from mirror.shared.redis_leases import RedisLeases

    coordinator = RedisLeases(settings, objects.name.removeprefix("s3://"))
    fit = lambda: probe(objects, leases=False)  # noqa: E731
    return Engines(
        objects.name, objects, coordinator, fit, records, coordinator.records(), objects, missing, uploads
    )
