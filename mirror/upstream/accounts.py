"""Accounts at one upstream, each with its own tokens and its own rate limit, used one after another.

1. The first account is used until its budget is out, it is answered 429, or its password is refused; then the
   next account is used.
2. A repository stays with the account that asked for it first, unless it is public. The upstream is asked
   whether it is public by a HEAD, or else a GET, without an account, when that matters. So no private
   repository is asked for with two accounts, whatever their budgets are.
3. When the budgets of all accounts are out, the first account that has not been answered 429 is used.

Claims and visibility of repositories are kept in memory, bounded, and lost when the process ends.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct, field

from mirror.config.endpoints import UpstreamSettings
from mirror.credentials.credential import CredentialError, LoginSource
from mirror.credentials.login import Login
from mirror.metrics.metrics import Metrics
from mirror.upstream.auth import Authorizer
from mirror.upstream.http.transport import Transport
from mirror.upstream.rate_limit import OUT, PLENTY, BudgetLevel, RateLimit, RateLimitReading
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

ANONYMOUS = "anonymous"

# Repositories whose claims, and whose visibility, are remembered.
MAX_REPOSITORIES = 10_000
# How long a repository is taken for public, and for private, after the upstream was asked, in seconds.
PUBLIC_TTL = 3600.0
PRIVATE_TTL = 300.0
# How long a repository is claimed by an account that could not read it, in seconds: perhaps another one can.
CLAIM_TTL = 3600.0


class Account:
    """One account and what is known about it; also the state of requests without an account."""

    def __init__(self, name: str, auth: Authorizer, rate_limit: RateLimit) -> None:
        self.name = name
        self.auth = auth
        self.rate_limit = rate_limit

    def __repr__(self) -> str:
        return f"Account({self.name!r})"

    @property
    def preference(self) -> tuple[bool, bool, bool]:
        """Sort key: lower is used first; equal accounts are used in the order of the configuration."""
        absent = self.auth.login is not None and self.auth.login.absent
        return (absent or self.auth.refused, self.rate_limit.refused, self.rate_limit.budget_level is OUT)

    def observe(self, headers: Mapping[str, str], status: int, upstream: str) -> None:
        """Learn from an answer of the upstream itself to a request with this account."""
        before = self.rate_limit.budget_level
        self.rate_limit.observe(headers, status)
        now = self.rate_limit.budget_level
        if now is not before:
            reading = self.rate_limit.reading
            values = {"remaining": reading.remaining, "limit": reading.limit} if reading is not None else {}
            emit = log.info if now is PLENTY else log.warning
            event = "rate limit budget changed"
            emit(event, upstream=upstream, account=self.name, rate_limit=now.name, **values)

    def report(self, metrics: Metrics, upstream: str) -> None:
        """Set the gauges of this account."""
        if self.name != ANONYMOUS:
            metrics.account_refused.labels(upstream, self.name).set(self.auth.password_refused)
        reading = self.rate_limit.reading
        if reading is not None:
            metrics.ratelimit_remaining.labels(upstream, self.name).set(reading.remaining)
        if reading is not None and reading.limit is not None:
            metrics.ratelimit_limit.labels(upstream, self.name).set(reading.limit)

    def state(self) -> dict[str, Any]:
        """Return the state for /readyz. Numbers are None where the upstream has reported none lately."""
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

    def details(self) -> dict[str, Any]:
        """Return the state for people: that of /readyz, and when the limit is renewed."""
        seconds = self.rate_limit.renews_in
        return {**self.state(), "renews": None if seconds is None else time.time() + seconds}


class _Claim(Struct):
    """The account that a repository is asked for with; `until` is inf once the account has read from it."""

    account: Account
    until: float


class _Visibility(Struct):
    """Visibility of a repository, public or not, and the lock under which the upstream is asked."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    public: bool = False
    until: float = -math.inf


class Accounts:
    """Chooses the account for each request."""

    def __init__(self, settings: UpstreamSettings, transport: Transport, clock: Callable[[], float]) -> None:
        self._tasks = Tasks()

        def account(source: LoginSource | None) -> Account:
            login = None if source is None else Login(settings.name, source, self._tasks, clock)
            name = ANONYMOUS if source is None else source.name
            return Account(name, Authorizer(settings, transport, clock, login), RateLimit(clock))

        self.anonymous = account(None)
        named = tuple(account(source) for source in settings.logins())
        # What came with a certificate, or with a client's credentials, is as private as with a password.
        self.configured = bool(named) or settings.client_cert is not None or settings.private == "as-upstream"
        self.all = named or (self.anonymous,)
        self._clock = clock
        self._claims: dict[str, _Claim] = {}
        self._visibility: dict[str, _Visibility] = {}

    async def choose(self, repository: str, probe: Callable[[], Awaitable[bool]]) -> Account:
        """Return the account for the next request. `probe` asks the upstream if the repository is public."""
        if len(self.all) == 1:
            return self.all[0]
        await self._look_for_logins()
        best = min(self.all, key=lambda account: account.preference)
        claim = self._claim(repository)
        if claim is None:
            self._claims[repository] = _Claim(best, self._clock() + CLAIM_TTL)
            _drop_oldest(self._claims)
            return best
        # Nothing above awaits: two concurrent requests for a repository do not claim it differently.
        if claim.account is best or await self._is_public(repository, probe):
            return best
        return claim.account

    async def close(self) -> None:
        """End the refreshes of logins."""
        await self._tasks.close()

    async def _look_for_logins(self) -> None:
        """Find out which accounts have credentials: one that has none comes last."""
        for login in (each.auth.login for each in self.all):
            if login is not None:
                with contextlib.suppress(CredentialError):  # the next account may have some
                    await login.get()

    def confirm_claim(self, repository: str, account: Account) -> None:
        """Make the claim permanent: the account has read something of the repository."""
        claim = self._claim(repository)
        if claim is not None and claim.account is account:
            claim.until = math.inf

    def release_claim(self, repository: str, account: Account) -> None:
        """Give up a claim that was never used: the account got no token, so the upstream was not asked."""
        claim = self._claim(repository)
        if claim is not None and claim.account is account and claim.until != math.inf:
            del self._claims[repository]

    def budget_level(self, repository: str) -> BudgetLevel:
        """Return the budget for requests about a repository: that of the account with most left."""
        claim, known = self._claims.get(repository), self._visibility.get(repository)
        if claim is not None and known is not None and not known.public and self._clock() < known.until:
            return claim.account.rate_limit.budget_level
        usable = [account for account in self.all if not account.auth.refused] or self.all
        return min(
            (account.rate_limit.budget_level for account in usable), key=lambda level: level.ttl_factor
        )

    def reading(self) -> RateLimitReading | None:
        """Return what all accounts together have left; None if that of one of them is not known."""
        readings = [each.rate_limit.reading for each in self.all if not each.auth.refused]
        known = [each for each in readings if each is not None]
        if not known or len(known) < len(readings):
            return None
        limits = [each.limit for each in known if each.limit is not None]
        return RateLimitReading(
            sum(each.remaining for each in known),
            sum(limits) if len(limits) == len(known) else None,
            max((each.window for each in known if each.window is not None), default=None),
        )

    @property
    def count_pulls(self) -> bool:
        """True while the upstream reports a rate limit for any account, or has refused one lately."""
        limits = [account.rate_limit for account in self.all]
        return any(limit.reading is not None or limit.budget_level is not PLENTY for limit in limits)

    def redacted(self, text: str) -> str:
        """Return `text` without any of the passwords, should an upstream echo one."""
        for account in self.all:
            text = account.auth.redacted(text)
        return text

    def _claim(self, repository: str) -> _Claim | None:
        """Return the claim on a repository and move it to the end, so that it is dropped last."""
        claim = self._claims.pop(repository, None)
        if claim is None or self._clock() >= claim.until:
            return None
        self._claims[repository] = claim
        return claim

    async def _is_public(self, repository: str, probe: Callable[[], Awaitable[bool]]) -> bool:
        known = self._visibility.setdefault(repository, _Visibility())
        _drop_oldest(self._visibility)
        async with known.lock:
            if self._clock() >= known.until:
                known.public = await probe()
                known.until = self._clock() + (PUBLIC_TTL if known.public else PRIVATE_TTL)
            return known.public


def _drop_oldest(remembered: dict[str, _Claim] | dict[str, _Visibility]) -> None:
    """Drop the entry that was used longest ago if there are more than MAX_REPOSITORIES."""
    if len(remembered) > MAX_REPOSITORIES:
        del remembered[next(iter(remembered))]
