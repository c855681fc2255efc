"""Leases and records in Redis or Valkey. The one module that uses redis-py.

`SET NX PX` takes a lease; scripts renew and release it, since no command that compares a value is in Redis 7,
Redis 8 and Valkey alike. The library repeats each command by default (ten times, with five seconds each), so
that a lease of ours looks like another's: nothing is repeated here.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from mirror.config.tier.shared import SharedSettings
from mirror.shared.errors import TierError, TierFault
from mirror.shared.interfaces import Holder
from mirror.shared.lease_text import format_holder, parse_holder

# The most connections of one process; further commands wait for one.
CONNECTIONS = 8

# The most bytes of a record that are read: a longer one is none of ours.
MOST_TEXT = 1024 * 1024

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_REFUSALS = (exceptions.AuthenticationError, exceptions.NoPermissionError, exceptions.AuthorizationError)


class RedisLeases:
    """`Leases` under keys that begin with `scope`, which is the bucket's name and prefix."""

    def __init__(self, settings: SharedSettings, scope: str) -> None:
        self._name = urlsplit(settings.coordinator).netloc
        self._scope = f"registry-mirror:{scope}:"
        password = settings.coordinator_password
        pool = BlockingConnectionPool.from_url(
            settings.coordinator,
            username=settings.coordinator_username,
            password=None if password is None else password.get_secret_value(),
            max_connections=CONNECTIONS,
            timeout=settings.timeout,
            socket_timeout=settings.timeout,
            socket_connect_timeout=settings.timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,  # else each connection reads the files of installed packages, in the event loop
        )
        self._redis: Redis = Redis.from_pool(pool)

    async def acquire(self, key: str, holder: Holder, seconds: float) -> Holder:
        text, name = format_holder(holder), self._scope + key
        with self._translated():
            if await self._redis.set(name, text, nx=True, px=_milliseconds(seconds)):
                return holder
        # Another holds it, or the answer to an earlier attempt of ours was lost. Free again since: ours is
        # the next attempt's.
        return await self.holder(key) or Holder("")

    async def renew(self, key: str, holder: Holder, seconds: float) -> bool:
        return bool(await self._run(_RENEW, key, format_holder(holder), _milliseconds(seconds)))

    async def release(self, key: str, holder: Holder) -> None:
        await self._run(_RELEASE, key, format_holder(holder))

    async def holder(self, key: str) -> Holder | None:
        with self._translated():
            found = await self._redis.get(self._scope + key)
        return parse_holder(found) if isinstance(found, bytes) else None

    def records(self) -> "RedisRecords":
        """Return records under keys of the same scope, by the same connections."""
        return RedisRecords(self._redis, self._scope, self._translated)

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _run(self, script: str, key: str, *args: str | int) -> Any:
        with self._translated():
            return await self._redis.eval(script, 1, self._scope + key, *args)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise TierError for an error of the library, whose texts have neither password nor user."""
        try:
            yield
        except _REFUSALS as error:
            message = f"{self._name} refuses the user or password of the coordinator"
            raise TierError(TierFault.REFUSED, message) from error
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            message = f"{self._name} does not answer as a coordinator: {_reason(error)}"
            raise TierError(TierFault.UNREACHABLE, message) from error


class RedisRecords:
    """`Records` of the connections of a RedisLeases, which closes them."""

    def __init__(
        self, redis: Redis, scope: str, translated: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._redis = redis
        self._scope = scope
        self._translated = translated

    async def get(self, key: str) -> bytes | None:
        with self._translated():
            found = await self._redis.getrange(self._scope + key, 0, MOST_TEXT)
        return found if isinstance(found, bytes) and found else None

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        with self._translated():
            await self._redis.set(self._scope + key, data, px=_milliseconds(seconds))


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
