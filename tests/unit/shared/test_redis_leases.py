"""Leases in Redis, as far as the suite for all engines has them not: refusals, and a server that is away."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from mirror.shared.errors import TierError, TierFault
from mirror.shared.lease_text import new_holder
from mirror.shared.redis_leases import RedisLeases
from tests.engines import PASSWORD, Engine, running, settings_of, valkey


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(valkey(tmp_path_factory.mktemp("valkey"))) as engine:
        yield engine


async def failure(leases: RedisLeases) -> TierError:
    with pytest.raises(TierError) as caught:
        await leases.acquire("a", new_holder(), 10)
    await leases.close()
    return caught.value


async def test_redis_with_another_password_refuses(server: Engine) -> None:
    """The message says what to look at, and has no password in it."""
    wrong = settings_of(server).model_copy(update={"coordinator_password": None})
    error = await failure(RedisLeases(wrong, "b"))
    assert (error.fault, "password" in str(error)) == (TierFault.REFUSED, True)
    assert PASSWORD not in f"{error!r} {error.__cause__!r}"


async def test_redis_that_is_away_or_stopped_fails_in_time(server: Engine) -> None:
    """Nothing is repeated: one attempt, of the configured time."""
    away = settings_of(Engine("nobody", [], 9, "redis"), timeout=0.5)
    error = await failure(RedisLeases(away, "b"))
    assert (error.fault, "127.0.0.1:9" in str(error)) == (TierFault.UNREACHABLE, True)
    leases = RedisLeases(settings_of(server, timeout=0.5), "b")
    await leases.holder("a")
    server.stop()
    began = time.monotonic()
    try:
        error = await failure(leases)
    finally:
        server.go_on()
    assert error.fault is TierFault.UNREACHABLE
    assert time.monotonic() - began >= 0.5


async def test_redis_value_of_others_is_no_holder(server: Engine) -> None:
    """A value that is no holder of ours blocks the lease until it lapses, and names no address."""
    from redis.asyncio import Redis

    leases = RedisLeases(settings_of(server), "c")
    async with Redis(port=server.port, password=PASSWORD, driver_info=None) as redis:
        await redis.set("registry-mirror:c:a", b"\xff" * 2000)
    assert await leases.holder("a") is None
    assert (await leases.acquire("a", new_holder(), 10)).owner == ""
    await leases.close()


async def test_redis_connections_are_bounded(server: Engine) -> None:
    """Claims beyond the connections wait for one."""
    leases = RedisLeases(settings_of(server), "d")
    claims = [new_holder() for _ in range(50)]
    told = await asyncio.gather(*(leases.acquire(f"{each.owner}", each, 10) for each in claims))
    assert told == claims
    await leases.close()
