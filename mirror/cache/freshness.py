"""Freshness: how long an upstream's answer about a tag is used; pure.

    confirmed ──fresh──┬──stale_while_revalidate──▶
                       └──stale_if_error───────────────────▶

    fresh                   served unasked
    stale_while_revalidate  served at once, revalidated meanwhile
    stale_if_error          served when the upstream cannot be asked

Both stale periods begin at the end of `fresh` (the words are those of RFC 9111 and RFC 5861). When the longer
one is over, an answer is used only after it was revalidated. An immutable tag is always fresh. An answer that
is served without being confirmed is *stale*. While an upstream's rate limit runs out, more answers are served
stale, and fewer are revalidated (mirror.upstream.rate_limit).

The age of a tag that no upstream has ever confirmed, because it was imported, is `math.inf`. It is stale from
its beginning, whatever the immutable patterns are: its upstream is asked before it is used. While the
upstream cannot be asked it is served whatever the terms are: an operator put it here for that.
"""

import math
from fnmatch import fnmatchcase

from msgspec import Struct

from mirror.config.schema import TagRuleSettings, TagSettings
from mirror.oci.image_pattern import escaped_address
from mirror.oci.reference import Repository, Tag
from mirror.upstream.rate_limit import BudgetLevel


class FreshnessTerms(Struct, frozen=True):
    """The periods of one tag, in seconds; `math.inf` for no limit."""

    fresh: float
    stale_while_revalidate: float
    stale_if_error: float

    def ttl(self, age: float) -> float:
        """Return how much longer an answer confirmed `age` seconds ago is fresh; 0 or less: no longer.

        A clock that was set back makes an age negative, and must not make anything fresh for years.
        """
        return self.fresh - age if 0 <= age < math.inf else 0.0

    def serve_while_revalidating(self, age: float) -> bool:
        """Return whether the answer is served at once while the upstream is being asked."""
        return 0 <= age < self.fresh + self.stale_while_revalidate

    def serve_to_save_budget(self, age: float, budget: BudgetLevel) -> bool:
        """Return whether the answer is served stale to save the upstream's rate limit."""
        extended = math.isinf(budget.ttl_factor) or self.fresh <= age < self.fresh * budget.ttl_factor
        return extended and self.serve_on_error(age)

    def serve_on_error(self, age: float) -> bool:
        """Return whether the answer is served when the upstream cannot be asked."""
        return age < self.fresh + max(self.stale_while_revalidate, self.stale_if_error) or math.isinf(age)


class Freshness:
    """The terms of all tags: those of the first rule that matches, completed by those of the section."""

    def __init__(self, settings: TagSettings) -> None:
        self._settings = settings

    def terms(self, repository: Repository, tag: Tag | None = None) -> FreshnessTerms:
        """Return the terms of a tag; `tag` is None for other answers about a repository."""
        settings = self._settings
        rule = self._rule(repository)
        if tag is not None and _matches(tag, (*settings.immutable, *rule.immutable)):
            return FreshnessTerms(float("inf"), 0.0, 0.0)
        return FreshnessTerms(
            _first(rule.fresh, settings.fresh),
            _first(rule.stale_while_revalidate, settings.stale_while_revalidate),
            _first(rule.stale_if_error, settings.stale_if_error),
        )

    def keeps_gone(self, repository: Repository) -> bool:
        """Return whether content of the repository is served although it is gone upstream."""
        return (self._rule(repository).on_gone or self._settings.on_gone) == "keep"

    def _rule(self, repository: Repository) -> TagRuleSettings:
        name = str(repository)
        found = (
            rule for rule in self._settings.rules if fnmatchcase(name, escaped_address(rule.repositories))
        )
        return next(found, TagRuleSettings(repositories="*"))


def _matches(tag: Tag, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(tag.name, pattern) for pattern in patterns)


def _first(chosen: float | None, default: float) -> float:
    return default if chosen is None else chosen
