"""Retention rules: what keeps a tag, and that nothing else does."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.hosted.retention.rules import YOUNG_SECONDS, HeldTag, RetentionRule, judge

DAY = 86400.0
NOW = 1000 * DAY
DIGEST = "sha256:" + "a" * 64


def held(name: str, pushed: float = 100.0, pulled: float = 100.0) -> HeldTag:
    """A tag that was pushed and pulled so many days ago."""
    return HeldTag(name, DIGEST, NOW - pushed * DAY, NOW - pulled * DAY)


def removed(rules: list[RetentionRule], *tags: HeldTag, path: str = "app") -> list[str]:
    verdicts = judge(rules, path, tags, NOW, lambda name: name.startswith("v"))
    assert [each.tag for each in verdicts] == list(tags)
    assert all(each.reason for each in verdicts)
    return [each.tag.name for each in verdicts if not each.stays]


def rule(
    *tags: str, last: int = 0, days: float = 0, pulled: float = 0, repositories: tuple[str, ...] = ("*",)
) -> RetentionRule:
    return RetentionRule(repositories, tags or ("*",), last, days * DAY, pulled * DAY)


def test_last_tags_by_push_stay() -> None:
    tags = [held(str(age), age) for age in (5, 1, 9, 3)]
    assert removed([rule(last=2)], *tags) == ["5", "9"]


def test_tags_stay_for_a_time_after_push_and_after_pull() -> None:
    young, old, used = held("young", 1, 9), held("old", 9, 9), held("used", 9, 1)
    assert removed([rule(days=7)], young, old, used) == ["old", "used"]
    assert removed([rule(pulled=7)], young, old, used) == ["young", "old"]
    assert removed([rule(days=7, pulled=7)], young, old, used) == ["old"]


def test_first_rule_that_matches_decides_and_no_rule_keeps() -> None:
    rules = [rule("pr-*", last=1), rule("*", days=200, repositories=("app",))]
    tags = held("pr-1", 2), held("pr-2", 1), held("main", 100)
    assert removed(rules, *tags) == ["pr-1"]
    assert removed([rule("pr-*", last=1)], *tags) == ["pr-1"]
    assert removed([rule(last=1, repositories=("team/*",))], *tags) == []
    assert removed([rule(last=1, repositories=("team/*",))], *tags, path="team/app") == ["pr-1", "main"]


def test_immutable_young_and_attached_tags_stay() -> None:
    attached = held("sha256-" + "a" * 64 + ".sig")
    young = HeldTag("young", DIGEST, NOW - YOUNG_SECONDS + 1, 0.0)
    assert removed([rule(days=1)], held("v1"), attached, young) == []


TAGS = st.builds(
    HeldTag,
    st.sampled_from(["a", "b", "c", "pr-1", "pr-2", "v1"]),
    st.just(DIGEST),
    st.sampled_from([NOW - each * DAY for each in (0, 1, 2, 50)]),
    st.sampled_from([NOW - each * DAY for each in (0, 1, 2, 50)]),
)
RULES = st.builds(
    RetentionRule,
    st.sampled_from([("*",), ("app",), ("other",)]),
    st.sampled_from([("*",), ("pr-*",), ("a", "b")]),
    st.integers(0, 3),
    st.sampled_from([0.0, DAY, 10 * DAY]),
    st.sampled_from([0.0, DAY, 10 * DAY]),
)


@given(st.lists(RULES, max_size=3), st.lists(TAGS, max_size=6, unique_by=lambda tag: tag.name))
def test_tag_that_goes_fails_every_condition_of_its_rule(
    rules: list[RetentionRule], tags: list[HeldTag]
) -> None:
    for verdict in judge(rules, "app", tags, NOW, lambda name: name.startswith("v")):
        tag = verdict.tag
        mine = next((each for each in rules if _is_about(each, tag)), None)
        if mine is None:
            assert verdict.stays
            continue
        before = [
            each
            for each in tags
            if next((one for one in rules if _is_about(one, each)), None) is mine
            and (-each.pushed, each.name) < (-tag.pushed, tag.name)
        ]
        kept = (
            tag.name.startswith("v")
            or len(before) < mine.last
            or NOW - tag.pushed < max(mine.seconds, YOUNG_SECONDS)
            or NOW - tag.pulled < mine.seconds_after_pull
        )
        assert verdict.stays is kept


def _is_about(rule: RetentionRule, tag: HeldTag) -> bool:
    starts = {"*": "", "pr-*": "pr-"}
    return any(each in ("*", "app") for each in rule.repositories) and any(
        tag.name.startswith(starts[each]) if each in starts else tag.name == each for each in rule.tags
    )
