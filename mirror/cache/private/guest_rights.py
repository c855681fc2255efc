"""Rights of guests: whether a client's own credentials let it read a repository at the upstream.

    last answer          asked again                        while the upstream gives no answer
    -------------------  ---------------------------------  ----------------------------------
    may read             after GRANTED_SECONDS, or          may read, until `recheck_access`
                         `recheck_access` if that is less
    may not read         after REFUSED_SECONDS              no
    wrong password       after WINDOW                       no

What is remembered has a keyed hash of the credentials, and no user, password or token.
"""

import asyncio
from functools import partial

from msgspec import Struct

from mirror.cache.private.attempts import WINDOW, FailedAttempts
from mirror.oci.reference import Repository
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import Failure, UpstreamError, too_many_requests
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.upstream.rights.grant import Grant
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.fairness.client import current_client
from mirror.util.single_flight import SingleFlight
from mirror.util.ttl_cache import TTLCache

GRANTED_SECONDS = 300.0
REFUSED_SECONDS = 60.0

# How long a yes is kept for an outage, in seconds, at the most; and how many answers are kept.
KEPT_SECONDS = 24 * 3600.0
MOST = 10_000

_Key = tuple[bytes, Repository]


class _Answer(Struct, frozen=True):
    granted: bool
    at: float


class GuestRights:
    """Asks upstreams what guests may read, and remembers their answers for a short time."""

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, *, fallback_after: float) -> None:
        """`fallback_after`: seconds to wait where the last answer can be used instead."""
        self._context = context
        self._upstreams = upstreams
        self._fallback_after = fallback_after
        self._attempts = FailedAttempts(context.attempts)
        self._answers: TTLCache[_Key, _Answer] = TTLCache(KEPT_SECONDS, MOST)
        self._wrong: TTLCache[tuple[bytes, str], bool] = TTLCache(WINDOW, MOST)
        # Credentials that have opened a repository of an upstream: guesses at others do not keep them out.
        self._right: TTLCache[tuple[bytes, str], bool] = TTLCache(KEPT_SECONDS, MOST)
        self._asking: SingleFlight[_Key, Grant] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )

    async def ttl(self, repository: Repository, reference: str | None, credentials: GuestLogin) -> float:
        """Return for how many seconds these credentials are believed to open the repository; 0: they do not.

        `reference`: of the manifest that the client wants. Raises UpstreamError where nothing is known.
        """
        key, known = (credentials.key(), repository), self._known(credentials, repository)
        if (
            known is not None
            and (ttl := self._term(repository, granted=known.granted) - self._age(known)) > 0
        ):
            return ttl if known.granted else 0.0
        if known is None or not known.granted:
            return await self._ask(key, reference, credentials)
        try:
            async with asyncio.timeout(self._fallback_after):
                return await self._ask(key, reference, credentials, counted=False)
        except (TimeoutError, UpstreamError):
            if self._age(known) < min(self._upstreams[repository.upstream].recheck_access, KEPT_SECONDS):
                return 1.0
            raise

    def opens(self, repository: Repository, credentials: GuestLogin) -> bool:
        """Return whether these credentials open the repository, as far as that is known; nothing is asked."""
        known = self._known(credentials, repository)
        return known is not None and known.granted and self._age(known) < self._term(repository, granted=True)

    def _known(self, credentials: GuestLogin, repository: Repository) -> _Answer | None:
        """Return the last answer, unless the clock was set back since."""
        known = self._answers.get((credentials.key(), repository))
        return None if known is None or self._age(known) < 0 else known

    def _age(self, answer: _Answer) -> float:
        return self._context.clock() - answer.at

    def _term(self, repository: Repository, *, granted: bool) -> float:
        if not granted:
            return REFUSED_SECONDS
        return min(GRANTED_SECONDS, self._upstreams[repository.upstream].recheck_access)

    async def _ask(
        self, key: _Key, reference: str | None, credentials: GuestLogin, *, counted: bool = True
    ) -> float:
        """Ask the upstream; return as `ttl`. `counted`: these credentials have not been right lately."""
        hashed, repository = key
        if self._wrong.get((hashed, repository.upstream)):
            return 0.0
        counted = counted and not self._right.get((hashed, repository.upstream))
        ask = partial(self._ask_upstream, key, reference, credentials, counted=counted)
        grant = await self._asking.do(key, ask, repository.upstream)
        return self._term(repository, granted=True) if grant is Grant.GRANTED else 0.0

    async def _ask_upstream(
        self, key: _Key, reference: str | None, credentials: GuestLogin, *, counted: bool
    ) -> Grant:
        """Ask, and note the answer; unless too many were wrong that came from there, or for that user."""
        hashed, repository = key
        attempt = (current_client(), repository.upstream, credentials.user)
        if counted and not self._attempts.begin(*attempt):
            message = f"too many wrong passwords for {repository.upstream} lately: try again in some minutes"
            raise UpstreamError(Failure.DENIED, message)
        now, grant = self._context.clock(), None
        try:
            grant = await self._upstreams[repository.upstream].accounts.grant(
                repository.path, reference, credentials
            )
        finally:
            # A token may be right for another repository, but each may be a guess.
            wrong = grant is Grant.WRONG or (grant is Grant.REFUSED and credentials.token)
            if counted and not wrong:
                self._attempts.forgive(*attempt)
        self._note(grant, (hashed, repository.upstream))
        if grant is not Grant.ABSENT:
            self._answers.put(key, _Answer(grant is Grant.GRANTED, now))
        return grant

    def _note(self, grant: Grant, login: tuple[bytes, str]) -> None:
        """Note what an answer says of the credentials, whatever the repository."""
        if grant is Grant.WRONG:
            self._wrong.put(login, True)
            self._right.drop(login)
        elif grant is Grant.GRANTED:
            self._right.put(login, True)
