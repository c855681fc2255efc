"""Validity of what an upstream said about tags and lists: its terms, its age, and errors that end it."""

import math

from mirror.cache.freshness import Freshness, FreshnessTerms
from mirror.config.schema import TagSettings
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import NEVER, TagEntry
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import FINAL, Failure, UpstreamError
from mirror.upstream.upstream_set import UpstreamSet


class TagValidity:
    """The time for which answers about tags are used; `confirmed` is in seconds since the epoch."""

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, settings: TagSettings) -> None:
        self._context = context
        self._upstreams = upstreams
        self._freshness = Freshness(settings)

    def terms(self, repository: Repository, tag: Tag | None = None) -> FreshnessTerms:
        """Return the terms of a tag, or of other answers about the repository."""
        return self._freshness.terms(repository, tag)

    def age(self, confirmed: float) -> float:
        """Return the seconds since an answer was confirmed; `math.inf` for NEVER."""
        return math.inf if confirmed == NEVER else self._context.clock() - confirmed

    def ttl(self, repository: Repository, tag: Tag, entry: TagEntry) -> float:
        """Return how much longer an entry is fresh, in seconds; 0 or less: no longer.

        A tag that is gone upstream is never fresh.
        """
        if entry.gone is not None:
            return 0.0
        ttl = self.terms(repository, tag).ttl(self.age(entry.confirmed))
        return min(ttl, self.access_ttl(repository, entry.confirmed))

    def is_fresh(self, repository: Repository, confirmed: float) -> bool:
        """Return whether an answer about the repository is fresh."""
        ttl = self.terms(repository).ttl(self._context.clock() - confirmed)
        return min(ttl, self.access_ttl(repository, confirmed)) > 0

    def access_ttl(self, repository: Repository, confirmed: float) -> float:
        """Return how much longer an answer about the repository is used unasked, whatever its terms say."""
        return self._context.access_ttl(self._upstreams[repository.upstream], repository, confirmed)

    def saves_budget(self, repository: Repository, age: float) -> bool:
        """Return whether an answer `age` seconds old is served to save the repository's rate limit."""
        upstream = self._upstreams[repository.upstream]
        budget = upstream.accounts.budget_level(repository.path)
        return upstream.health.available and self.terms(repository).serve_to_save_budget(age, budget)

    def serves_while_revalidating(self, repository: Repository, age: float) -> bool:
        """Return whether an answer `age` seconds old is served at once while the upstream is asked."""
        upstream = self._upstreams[repository.upstream]
        return upstream.health.available and self.terms(repository).serve_while_revalidating(age)

    def is_ended_by(self, error: UpstreamError, repository: Repository, confirmed: float) -> bool:
        """Return whether an error takes away what the upstream gave at `confirmed`.

        The registry's own word does. Any other refusal does once the access of an account is to be checked.
        Where content is kept that is gone upstream, the refusal of an account's access alone does.
        """
        due = error.failure in FINAL and self.access_ttl(repository, confirmed) <= 0
        if self._freshness.keeps_gone(repository):
            return due and error.failure is not Failure.NOT_FOUND
        return error.final or due
