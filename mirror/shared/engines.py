"""The engines that the configuration names. Each library is imported here, and only where it is used."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from mirror.config.tier.shared import BUCKET_COORDINATOR, SharedSettings
from mirror.shared.interfaces import Leases, ObjectTier
from mirror.shared.probe import Fitness, probe


class Engines(Struct, frozen=True):
    """An object store, a coordinator, and the probe of both. `name`: the bucket, for messages."""

    name: str
    objects: ObjectTier
    leases: Leases
    probe: Callable[[], Awaitable[Fitness]]

    async def close(self) -> None:
        """Close the connections of both."""
        await self.leases.close()
        await self.objects.close()


def open_engines(settings: SharedSettings) -> Engines:
    """Return the engines, without a connection yet. Call where a bucket is configured."""
    from mirror.shared.bucket_leases import BucketLeases
    from mirror.shared.s3 import S3Objects

    bucket = settings.bucket
    if bucket is None:
        raise AssertionError("no bucket is configured")
    objects = S3Objects(settings, bucket)
    in_bucket = settings.coordinator == BUCKET_COORDINATOR
    if in_bucket:
        return Engines(objects.name, objects, BucketLeases(objects), lambda: probe(objects, leases=True))
    from mirror.shared.redis_leases import RedisLeases

    leases = RedisLeases(settings, objects.name.removeprefix("s3://"))
    return Engines(objects.name, objects, leases, lambda: probe(objects, leases=False))
