"""The engines that a configuration names."""

from mirror.shared.bucket_leases import BucketLeases
from mirror.shared.engines import open_engines
from mirror.shared.redis_leases import RedisLeases
from tests.engines import Engine, settings_of

NOBODY = Engine("nobody", [], 9, "s3")


async def test_engines_are_those_of_the_configuration() -> None:
    """Leases are in the bucket, or where the coordinator's URL says; no connection is made yet."""
    for coordinator, kind in ((None, BucketLeases), (Engine("redis", [], 9, "redis"), RedisLeases)):
        engines = open_engines(settings_of(NOBODY, coordinator, prefix="a/b"))
        assert engines.name == "s3://mirrors/a/b"
        assert isinstance(engines.leases, kind)
        await engines.close()
