"""Accounts of an upstream at all its sources: rate limits, and who may read what they can."""

import time
from collections.abc import Sequence

from mirror.upstream.combined.ranking import speakers_of
from mirror.upstream.guests.current import Guest
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.upstream.rate_limit import BudgetLevel, RateLimitReading
from mirror.upstream.rights.grant import Grant
from mirror.upstream.source import Source


class UpstreamAccounts:
    """The accounts of one upstream; the first of its sources is its own endpoint."""

    def __init__(self, sources: Sequence[Source], private: str) -> None:
        """`private`: who gets what only an account can read, as the option of that name."""
        self._own = sources[0]
        self._speakers = speakers_of(sources)
        self.configured = any(source.registry.accounts.configured for source in sources)
        self.admits_guests = private == "as-upstream"
        self._guarded = private != "everybody"

    @property
    def counts_pulls(self) -> bool:
        """True while a rate limit is reported: the GET of a manifest costs, a HEAD does not."""
        return any(source.registry.accounts.count_pulls for source in self._speakers)

    def budget_level(self, path: str) -> BudgetLevel:
        """Return what rate limits leave for requests about the tags of a repository: that of the best source.

        Sources that do not answer do not count, as long as another one does.
        """
        now = time.monotonic()
        asked = [each for each in self._speakers if each.health.allows_request(now)] or self._speakers
        levels = (each.registry.accounts.budget_level(each.path(path)) for each in asked)
        return min(levels, key=lambda level: level.ttl_factor)

    def rate_limit_reading(self) -> RateLimitReading | None:
        """Return how many pulls the upstream has left for all accounts; None where that is not known.

        Of several sources that speak for it, the one with the fewest.
        """
        readings = [each.registry.accounts.reading() for each in self._speakers]
        return min(filter(None, readings), key=lambda each: each.remaining, default=None)

    def guest(self, path: str, credentials: GuestLogin) -> Guest:
        """Return a client that comes with credentials of its own for a repository."""
        return self._own.registry.guests.guest(self._own.path(path), credentials)

    @property
    def guards(self) -> bool:
        """Return whether content may be here that not all clients may have."""
        return self._guarded and self.configured

    async def grant(self, path: str, reference: str | None, credentials: GuestLogin | None) -> Grant:
        """Ask the own endpoint whether these credentials, None for nobody's, may read a repository."""
        self._own.answers.raise_if_unresponsive()
        return await self._own.registry.grant(self._own.path(path), reference, credentials)
