"""Answers for a tag entry that is not fresh: revalidated, or stale where the terms of the tag allow it."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from msgspec import Struct

from mirror.cache.refusal_log import RefusalLog
from mirror.cache.results import Staleness
from mirror.cache.tag.gone import GoneKeeper, GoneUpstream, gone_since
from mirror.cache.tag.validity import TagValidity
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import Gone, TagEntry
from mirror.upstream.errors import FINAL, Failure, UpstreamError
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.log import debug_enabled, get_logger

T = TypeVar("T")

log = get_logger(__name__)

# Why an answer is stale that is revalidated meanwhile.
REVALIDATING = "revalidation is running"


class FallbackDue(UpstreamError):
    """The upstream has not answered within `fallback_after`, and there is a stale answer to fall back on."""


class Answers(Struct, Generic[T], frozen=True):
    """The two answers for an entry that is not fresh; `stale` gives None when its content is not here.

    `refresh` starts a revalidation in the background.
    """

    revalidated: Callable[[], Awaitable[T]]
    stale: Callable[[Staleness], Awaitable[T | None]]
    refresh: Callable[[], None]


class ExpiredEntries:
    """The decision between the two answers for tag entries that are not fresh."""

    def __init__(
        self, upstreams: UpstreamSet, validity: TagValidity, gone: GoneKeeper, fallback_after: float
    ) -> None:
        """`fallback_after`: seconds that an upstream has to answer while there is a stale answer."""
        self._gone = gone
        self._upstreams = upstreams
        self._validity = validity
        self._fallback_after = fallback_after
        self._refusals = RefusalLog()

    async def answer(self, repository: Repository, tag: Tag, entry: TagEntry, answers: Answers[T]) -> T:
        """Return the answer for an entry that is not fresh: revalidated, or stale where the terms allow it.

        0. A tag that is gone upstream, and is kept, is served at once while the upstream has said so lately.
        1. The stale answer is served at once where the terms allow revalidation meanwhile, where the upstream
           has not answered lately, and to save its rate limit. In the last case the upstream is asked only to
           see whether it answers again. An answer with an account that is older than `recheck_access` is
           served at once in the second case only.
        2. Otherwise the upstream is asked. It has `fallback_after` seconds if there is a stale answer to fall
           back on.
        """
        if entry.gone is not None and self._gone.asked_lately(repository, entry.gone):
            kept = await self._kept(repository, entry, entry.gone, answers)
            if kept is not None:
                return kept
        age = self._validity.age(entry.confirmed)
        terms, upstream = self._validity.terms(repository, tag), self._upstreams[repository.upstream]
        saves_budget = terms.serve_to_save_budget(age, upstream.accounts.budget_level(repository.path))
        serve_on_error = terms.serve_on_error(age)
        unasked = saves_budget or terms.serve_while_revalidating(age)
        if self._validity.access_ttl(repository, entry.confirmed) <= 0:
            unasked = False
        if unasked or (serve_on_error and not upstream.health.available):
            staleness = self._staleness(entry, _reason(upstream, saves_budget=saves_budget))
            if (answer := await answers.stale(staleness)) is not None:
                log_decision("tag stale, served at once", repository, tag, reason=staleness.reason)
                if not (saves_budget and upstream.health.available) and upstream.health.allows_request:
                    answers.refresh()
                return answer
        return await self._revalidated_or_stale(repository, entry, answers, serve_on_error=serve_on_error)

    async def wait_until_fallback(self, repository: Repository, answer: Awaitable[T]) -> T:
        """Await `answer` for at most `fallback_after` seconds, then raise FallbackDue; the request goes on.

        Not at all if the upstream has not answered lately.
        """
        seconds = self._fallback_after if self._upstreams[repository.upstream].health.available else 0.0
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            message = f"{repository.upstream} did not answer within {self._fallback_after:g} s"
            raise FallbackDue(Failure.TIMEOUT, message) from None

    async def _revalidated_or_stale(
        self, repository: Repository, entry: TagEntry, answers: Answers[T], *, serve_on_error: bool
    ) -> T:
        """Ask the upstream; return the stale answer if that fails, and raise the error if there is none."""
        try:
            if serve_on_error:
                answer = await self.wait_until_fallback(repository, answers.revalidated())
            else:
                answer = await answers.revalidated()
        except GoneUpstream as error:
            if (kept := await self._kept(repository, entry, error.gone, answers)) is None:
                raise
            answer = kept
        except UpstreamError as error:
            stale = None
            if serve_on_error and not self._validity.is_ended_by(error, repository, entry.confirmed):
                refused = error.failure in FINAL
                stale = await answers.stale(self._staleness(entry, str(error), refused=refused))
                if stale is not None and refused:
                    self._refusals.refused(repository.upstream, str(error))
            if stale is not None:
                return stale
            # Only the time for a fallback is over, and the fallback was evicted: wait for the upstream.
            if isinstance(error, FallbackDue) and self._upstreams[repository.upstream].health.available:
                return await answers.revalidated()
            raise
        self._refusals.answered(repository.upstream)
        return answer

    async def _kept(
        self, repository: Repository, entry: TagEntry, gone: Gone, answers: Answers[T]
    ) -> T | None:
        """Return the answer for a tag that is gone upstream; None if its content is not here any more."""
        answer = await answers.stale(self._gone.staleness(gone, entry.confirmed))
        if answer is not None:
            self._gone.note_served(repository)
        return answer

    def _staleness(self, entry: TagEntry, reason: str, *, refused: bool = False) -> Staleness:
        """Return why the answer for an entry is stale; a tag that no upstream has confirmed has no age."""
        age = self._validity.age(entry.confirmed)
        if entry.gone is not None:
            reason = f"{gone_since(entry.gone)}; {reason}"
        if entry.provenance is not None:
            date = time.strftime("%Y-%m-%d", time.gmtime(entry.provenance.date))
            reason = f"{entry.provenance.kind} on {date}; {reason}"
        return Staleness(None if math.isinf(age) else age, reason, refused)


def _reason(upstream: Upstream, *, saves_budget: bool) -> str:
    """Return the reason for a stale answer that is served at once."""
    if not upstream.health.available:
        return f"{upstream.name} has not answered lately"
    return saving_rate_limit(upstream.name) if saves_budget else REVALIDATING


def log_decision(event: str, repository: Repository, tag: Tag, **values: object) -> None:
    """Log a decision at level debug; names are formatted only while that level is on."""
    if debug_enabled():
        log.debug(event, repository=str(repository), tag=str(tag), **values)


def saving_rate_limit(upstream: str) -> str:
    """Return the reason why an upstream that answers was not asked."""
    return f"not asked, to save the rate limit of {upstream}"
