"""The accounts at one upstream: each with its own tokens and its own budget, used one after another.

1. The first one is used until its budget is out, it is answered 429, or its password is refused; then the
   next one is.
2. A repository stays with the account that asked for it first, unless anybody may read it. That is asked of
   the upstream without an account, by HEAD, when it matters and not before. So no private repository is asked
   with two accounts, whatever is left of them.
3. When all are out, it is the first of those that have not been answered 429.

What is remembered of repositories is in memory, and bounded: a new process begins anew.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mirror.config.endpoints import LoginSettings, UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.upstream.auth import Authorizer
from mirror.upstream.http.transport import Transport
from mirror.upstream.rate_limit import OUT, PLENTY, BudgetLevel, RateLimit
from mirror.util.log import get_logger

log = get_logger(__name__)

ANONYMOUS = "anonymous"

# How many repositories something is remembered of.
REMEMBERED = 10_000
# For how long an upstream's word that anybody may read a repository is taken, in seconds, and that not.
PUBLIC_FOR = 3600.0
PRIVATE_FOR = 300.0
# A repository that an account could not read is its own for this long, in seconds: perhaps another one can.
CLAIMED_FOR = 3600.0


class Account:
    """One account, or none: then what is known about anonymous requests."""

    def __init__(self, name: str, auth: Authorizer, rate_limit: RateLimit) -> None:
        self.name = name
        self.auth = auth
        self.rate_limit = rate_limit

    def __repr__(self) -> str:
        return f"Account({self.name!r})"

    @property
    def preference(self) -> tuple[bool, bool, bool]:
        """Less is better; equal ones are used in the order of the configuration."""
        return (self.auth.refused, self.rate_limit.refused, self.rate_limit.budget_level is OUT)

    def observe(self, headers: Mapping[str, str], status: int, upstream: str) -> None:
        """An answer of the upstream itself came to a request with this account."""
        before = self.rate_limit.budget_level
        self.rate_limit.observe(headers, status)
        now = self.rate_limit.budget_level
        if now is not before:
            reading = self.rate_limit.reading
            values = {"remaining": reading.remaining, "limit": reading.limit} if reading is not None else {}
            tell = log.info if now is PLENTY else log.warning
            tell("rate limit", upstream=upstream, account=self.name, rate_limit=now.name, **values)

    def report(self, metrics: Metrics, upstream: str) -> None:
        """Set the gauges to what is known."""
        if self.name != ANONYMOUS:
            metrics.account_refused.labels(upstream, self.name).set(self.auth.password_refused)
        reading = self.rate_limit.reading
        if reading is not None:
            metrics.ratelimit_remaining.labels(upstream, self.name).set(reading.remaining)
        if reading is not None and reading.limit is not None:
            metrics.ratelimit_limit.labels(upstream, self.name).set(reading.limit)

    def state(self) -> dict[str, Any]:
        """For people. The numbers are None where the upstream has not said anything lately."""
        reading = self.rate_limit.reading
        return {
            "account": self.name,
            "refused": self.auth.password_refused,
            "budget": self.rate_limit.budget_level.name,
            "limit": reading and reading.limit,
            "remaining": reading and reading.remaining,
            "window": reading and reading.window,
            "source": reading and reading.source,
        }


@dataclass(slots=True)
class _Claim:
    """Which account a repository was asked with; `until`: inf once it was read."""

    account: Account
    until: float


@dataclass(slots=True)
class _Openness:
    """Whether anybody may read a repository, and the lock under which that is asked."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    public: bool = False
    until: float = -math.inf


class Accounts:
    """Chooses. `public` of the methods asks the upstream whether anybody may read the repository."""

    def __init__(self, settings: UpstreamSettings, transport: Transport, clock: Callable[[], float]) -> None:
        def account(name: str, login: LoginSettings) -> Account:
            values = {"username": login.username, "password": login.password}
            return Account(
                name, Authorizer(settings.model_copy(update=values), transport, clock), RateLimit(clock)
            )

        self.anonymous = account(ANONYMOUS, LoginSettings())
        named = tuple(account(login.username or "", login) for login in settings.logins())
        self.all = named or (self.anonymous,)
        self._clock = clock
        self._claims: dict[str, _Claim] = {}
        self._openness: dict[str, _Openness] = {}

    async def choose(self, repository: str, public: Callable[[], Awaitable[bool]]) -> Account:
        """The account for the next request."""
        if len(self.all) == 1:
            return self.all[0]
        best = min(self.all, key=lambda account: account.preference)
        mine = self._claim(repository)
        if mine is None:
            self._claims[repository] = _Claim(best, self._clock() + CLAIMED_FOR)
            _forget(self._claims)
            return best
        # Nothing here waits before the claim is made: two that ask at once do not choose differently.
        if mine.account is best or await self._is_public(repository, public):
            return best
        return mine.account

    def confirm_claim(self, repository: str, account: Account) -> None:
        """The account was given something of the repository."""
        claim = self._claim(repository)
        if claim is not None and claim.account is account:
            claim.until = math.inf

    def release_claim(self, repository: str, account: Account) -> None:
        """The upstream was not asked after all: the account got no token."""
        claim = self._claim(repository)
        if claim is not None and claim.account is account and claim.until != math.inf:
            del self._claims[repository]

    def budget_level(self, repository: str) -> BudgetLevel:
        """How sparing to be with requests for the repository: as the account allows that has most left."""
        claim, known = self._claims.get(repository), self._openness.get(repository)
        if claim is not None and known is not None and not known.public and self._clock() < known.until:
            return claim.account.rate_limit.budget_level
        usable = [account for account in self.all if not account.auth.refused] or self.all
        return min(
            (account.rate_limit.budget_level for account in usable), key=lambda level: level.ttl_factor
        )

    def redacted(self, text: str) -> str:
        """`text` without any of the passwords, should an upstream echo one."""
        for account in self.all:
            text = account.auth.redacted(text)
        return text

    def _claim(self, repository: str) -> _Claim | None:
        """The claim on a repository; looking at it makes it the last to be forgotten."""
        claim = self._claims.pop(repository, None)
        if claim is None or self._clock() >= claim.until:
            return None
        self._claims[repository] = claim
        return claim

    async def _is_public(self, repository: str, public: Callable[[], Awaitable[bool]]) -> bool:
        known = self._openness.setdefault(repository, _Openness())
        _forget(self._openness)
        async with known.lock:
            if self._clock() >= known.until:
                known.public = await public()
                known.until = self._clock() + (PUBLIC_FOR if known.public else PRIVATE_FOR)
            return known.public


def _forget(remembered: dict[str, _Claim] | dict[str, _Openness]) -> None:
    """The oldest, when there are too many."""
    if len(remembered) > REMEMBERED:
        del remembered[next(iter(remembered))]
