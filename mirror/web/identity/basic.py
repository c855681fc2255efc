"""Users who log in with a password: HTTP Basic, against the hashes of `access.htpasswd`.

A password is hashed in a thread, for that is made to take long. The verdict is remembered for a minute under
a key that only this process has: a client that sends its password with each request costs one hash a minute,
and so does one that sends a wrong password. A flood of passwords that differ is refused when it has failed
often enough; while it lasts, its address waits behind the others.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mirror.util.fairness.client import current_client
from mirror.util.fairness.window_counts import Cells
from mirror.util.log import get_logger
from mirror.util.lru import LRUCache
from mirror.util.single_flight import SingleFlight
from mirror.util.tasks import Tasks
from mirror.web.identity.credentials import (
    BASIC,
    Authenticator,
    BasicLogin,
    Claim,
    Credentials,
    NotVerified,
    WrongCredentials,
)
from mirror.web.identity.failures import Failures
from mirror.web.identity.passwords import is_password, unknown_user
from mirror.web.identity.users import Users

log = get_logger(__name__)

# How long a verdict is remembered, in seconds, and the room for verdicts, in bytes: ten thousand.
VERDICT_SECONDS = 60.0
VERDICT_BYTES = 8 * 1024 * 1024

# Passwords that wait to be hashed, at most; beyond that the client with the most is refused.
WAITING = 32

# Delay that a client is told that has failed too often or finds too many waiting, in seconds.
BUSY_SECONDS = 1
BLOCKED_SECONDS = 60


class BasicUsers(Authenticator):
    """Authenticator of `user:NAME`. Close it with `close`."""

    def __init__(
        self,
        users: Users,
        clock: Callable[[], float] = time.monotonic,
        *,
        others: bool = False,
        attempts: Cells | None = None,
    ) -> None:
        """`others`: a user who is not in the file may be one of an upstream. `attempts`: of all workers."""
        self._users = users
        self._others = others
        self._clock = clock
        self._key = secrets.token_bytes(32)
        # Half of the processors: the others answer requests meanwhile.
        self._pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2), thread_name_prefix="passwords")
        self._tasks = Tasks()
        self._checks: SingleFlight[bytes, bool] = SingleFlight(self._tasks, WAITING, refusal=_busy)
        self._verdicts: LRUCache[bytes, tuple[bool, float]] = LRUCache(VERDICT_BYTES)
        self._failures = Failures(clock, attempts)

    async def start(self) -> None:
        """Read the users, and watch their file. Raises OSError or ValueError."""
        await self._users.load()
        self._tasks.spawn(self._users.watch(), name="users")

    async def close(self) -> None:
        """End the checks that run."""
        await self._tasks.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def claim(self, shown: Credentials) -> Claim | None:
        if shown.scheme != BASIC:
            return None
        if shown.login is None:
            raise WrongCredentials("the Authorization header is not Basic with a user and a password")
        user = shown.login.user
        if self._others and self._users.hash_of(user) is None:
            return None
        right, seconds = await self._verdict(shown.login)
        if not right:
            raise WrongCredentials(f"wrong user or password for {user!r:.80}")
        return Claim((f"user:{user}",), seconds, f"user:{self._users.stamp(user)}:{user}")

    async def recall(self, handle: str) -> Claim | None:
        kind, _, rest = handle.partition(":")
        stamp, _, user = rest.partition(":")
        if kind != "user" or not user or self._users.stamp(user) != stamp:
            return None
        return Claim((f"user:{user}",), handle=handle)

    async def _verdict(self, login: BasicLogin) -> tuple[bool, float]:
        """Return whether the login is right, and for how many seconds the answer is remembered."""
        hashed = self._users.hash_of(login.user)
        key = self._remembered_as(login, hashed)
        found = self._verdicts.get(key)
        if found is not None and (left := found[1] - self._clock()) > 0:
            return found[0], left
        source = current_client()
        was_right = found is not None and found[0]  # with this very hash, so that it is no guess
        if not was_right and self._failures.blocked(source, login.user):
            raise NotVerified(
                f"too many wrong passwords from {source}: try again in a minute", BLOCKED_SECONDS
            )
        right = await self._checks.do(key, partial(self._check, login, hashed))
        if not right:
            self._note_failure(source, login.user)
        self._verdicts.put(key, (right, self._clock() + VERDICT_SECONDS), len(key))
        return right, VERDICT_SECONDS

    async def _check(self, login: BasicLogin, hashed: str | None) -> bool:
        against = unknown_user(self._users.any_hash()) if hashed is None else hashed
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._pool, is_password, against, login.password)
        return right and hashed is not None

    def _note_failure(self, source: str, user: str) -> None:
        if self._failures.note(source, user):
            log.warning("too many wrong passwords", client=source, user=user[:80])

    def _remembered_as(self, login: BasicLogin, hashed: str | None) -> bytes:
        """Return the key of a verdict: with another hash in the file it is another question."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (login.user, login.password, hashed or ""):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.digest()


def _busy(_group: str) -> NotVerified:
    return NotVerified("too many clients are logging in: try again in a moment", BUSY_SECONDS)
