"""How long what an upstream said about a tag is taken for true; pure.

    confirmed ──fresh──▶ used unasked ──stale_while_revalidate──▶ used at once, asked about meanwhile
              ──stale_if_error──▶ asked about first, used when the upstream cannot be asked

Each span begins where the one before it ends. What is used though it was not confirmed is *stale*. While an
upstream's rate limit runs out, more is used so and less is asked about (mirror.upstream.budget).
"""

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mirror.config.schema import TagRuleSettings, TagSettings
from mirror.oci.reference import Repository, Tag
from mirror.upstream.rate_limit import BudgetLevel


@dataclass(frozen=True, slots=True)
class FreshnessTerms:
    """Of one tag, all in seconds, `math.inf` for without limit."""

    fresh: float
    stale_while_revalidate: float
    stale_if_error: float

    def left(self, age: float) -> float:
        """How much longer something confirmed `age` seconds ago is used unasked; 0 or less: no longer.

        A clock that was set back makes an age negative, and must not make anything fresh for years.
        """
        return self.fresh - age if age >= 0 else 0.0

    def at_once(self, age: float) -> bool:
        """Whether it is used while the upstream is being asked."""
        return 0 <= age < self.fresh + self.stale_while_revalidate

    def spared(self, age: float, pressure: BudgetLevel) -> bool:
        """Whether it is used, as stale, so that the upstream need not be asked: it allows little more."""
        stretched = math.isinf(pressure.ttl_factor) or self.fresh <= age < self.fresh * pressure.ttl_factor
        return stretched and self.at_worst(age)

    def at_worst(self, age: float) -> bool:
        """Whether it is used when the upstream cannot be asked."""
        return age < self.fresh + max(self.stale_while_revalidate, self.stale_if_error)


class Freshness:
    """The terms of each tag: of the first rule that matches; where it says nothing, of the section."""

    def __init__(self, settings: TagSettings) -> None:
        self._settings = settings

    def of(self, repository: Repository, tag: Tag | None = None) -> FreshnessTerms:
        """`tag` is None for what is asked about a repository otherwise."""
        settings = self._settings
        rule = self._rule(repository)
        if tag is not None and _matches(tag, (*settings.immutable, *rule.immutable)):
            return FreshnessTerms(float("inf"), 0.0, 0.0)
        return FreshnessTerms(
            _first(rule.fresh, settings.fresh),
            _first(rule.stale_while_revalidate, settings.stale_while_revalidate),
            _first(rule.stale_if_error, settings.stale_if_error),
        )

    def _rule(self, repository: Repository) -> TagRuleSettings:
        name = str(repository)
        found = (rule for rule in self._settings.rules if fnmatchcase(name, rule.repositories))
        return next(found, TagRuleSettings(repositories="*"))


def _matches(tag: Tag, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(tag.name, pattern) for pattern in patterns)


def _first(chosen: float | None, otherwise: float) -> float:
    return otherwise if chosen is None else chosen
