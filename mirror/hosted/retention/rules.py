"""Decisions about the tags of one repository: pure, with the time passed in.

The first rule that matches a tag decides about it. The tag stays if the rule's number, or one of its times,
keeps it; a tag that no rule matches stays.
"""

import re
from collections.abc import Callable, Sequence

from msgspec import Struct

from mirror.access.patterns import matches

# A push is followed by further ones that refer to it, of an index or a signature for instance: so long a tag
# stays in any case, in seconds.
YOUNG_SECONDS = 3600.0

# Tags that belong to a manifest, and go with it: of signatures, attestations and SBOMs, and the fallback tag
# of the referrers API (OCI distribution-spec, "Referrers Tag Schema").
ATTACHED = re.compile(r"(sha256|sha512)-([0-9a-f]{64})[0-9a-f]{0,64}(\.[A-Za-z0-9._-]+)?")


class RetentionRule(Struct, frozen=True):
    """One rule: patterns, the number of tags that stay, and times in seconds; 0 keeps nothing."""

    repositories: tuple[str, ...]
    tags: tuple[str, ...]
    last: int = 0
    seconds: float = 0.0
    seconds_after_pull: float = 0.0


class HeldTag(Struct, frozen=True):
    """A tag, with its last push, and the last pull of its manifest, in seconds since the epoch."""

    name: str
    digest: str
    pushed: float
    pulled: float


class TagVerdict(Struct, frozen=True):
    """A decision about a tag, and why."""

    tag: HeldTag
    stays: bool
    reason: str


def judge(
    rules: Sequence[RetentionRule],
    path: str,
    tags: Sequence[HeldTag],
    now: float,
    is_immutable: Callable[[str], bool],
) -> list[TagVerdict]:
    """Return the decisions about the tags of a repository, in their order. `path`: without the registry."""
    about = [each for each in rules if matches(path, each.repositories)]
    mine: dict[int, list[HeldTag]] = {}
    verdicts: dict[str, TagVerdict] = {}
    for tag in tags:
        number = next((n for n, rule in enumerate(about) if matches(tag.name, rule.tags)), None)
        if ATTACHED.fullmatch(tag.name):
            verdicts[tag.name] = TagVerdict(tag, True, "belongs to a manifest, and goes with it")
        elif number is None:
            verdicts[tag.name] = TagVerdict(tag, True, "no rule matches it")
        else:
            mine.setdefault(number, []).append(tag)
    for number, matched in mine.items():
        matched.sort(key=lambda tag: (-tag.pushed, tag.name))
        for rank, tag in enumerate(matched):
            reason = _reason(about[number], rank, tag, now, is_immutable)
            verdicts[tag.name] = TagVerdict(
                tag, reason is not None, reason or "no condition of its rule keeps it"
            )
    return [verdicts[tag.name] for tag in tags]


def _reason(
    rule: RetentionRule, rank: int, tag: HeldTag, now: float, is_immutable: Callable[[str], bool]
) -> str | None:
    """Return why a tag stays that a rule matches; None if it does not. `rank`: from the last push, from 0."""
    if is_immutable(tag.name):
        return "it is immutable"
    if now - tag.pushed < YOUNG_SECONDS:
        return "it was pushed in the last hour"
    if rank < rule.last:
        return f"it is among the last {rule.last} pushed"
    if now - tag.pushed < rule.seconds:
        return "it was pushed in the time of keep_for"
    if now - tag.pulled < rule.seconds_after_pull:
        return "it was pulled in the time of keep_pulled"
    return None
