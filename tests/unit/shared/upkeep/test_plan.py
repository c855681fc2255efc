"""The plan of an upkeep."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.shared.interfaces import TierObject
from mirror.shared.upkeep.marks import mark_of
from mirror.shared.upkeep.plan import GRACE_SECONDS, HOUR, LOW_WATER, Knowledge, TierCleaning, TierLimits

NOW = 1000 * HOUR


def blob(number: int, size: int, hours: float) -> TierObject:
    """A blob that was written so many hours ago."""
    return TierObject(Digest.of(str(number).encode()), size, NOW - hours * HOUR)


def removed(
    blobs: list[TierObject], limits: TierLimits, knowledge: Knowledge | None = None
) -> list[TierObject]:
    plan = TierCleaning(knowledge or Knowledge({}, ()), limits, NOW)
    for each in blobs:
        plan.count(each)
    plan.decide()
    return [each for each in blobs if plan.goes(each)]


def test_plan_removes_the_least_recently_used_down_to_the_low_water() -> None:
    """A use counts as a writing does; below the quota nothing goes."""
    old, used, new = blob(1, 40, 50), blob(2, 40, 60), blob(3, 40, 10)
    knowledge = Knowledge({mark_of(used.digest): NOW - 5 * HOUR}, ())
    assert removed([old, used, new], TierLimits(size=100), knowledge) == [old]
    assert removed([old, used, new], TierLimits(size=60), knowledge) == [old, new]
    assert removed([old, used, new], TierLimits(size=120), knowledge) == []
    assert removed([old, used, new], TierLimits(), knowledge) == []


def test_plan_keeps_what_is_pinned_or_in_use_whatever_the_quota_is() -> None:
    """A blob that is read or was uploaded a moment ago stays, and one that a mirror has pinned."""
    pinned, read, uploaded = blob(1, 40, 500), blob(2, 40, 500), blob(3, 40, 1)
    knowledge = Knowledge({mark_of(read.digest): NOW - HOUR}, {mark_of(pinned.digest)})
    assert removed([pinned, read, uploaded], TierLimits(size=1, age=HOUR), knowledge) == []


def test_plan_removes_what_was_not_used_for_the_age() -> None:
    """Age counts without a quota, and within one."""
    old, new = blob(1, 1, 50), blob(2, 1, 10)
    assert removed([old, new], TierLimits(age=20 * HOUR)) == [old]
    assert removed([old, new], TierLimits(size=100, age=20 * HOUR)) == [old]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 30)), max_size=30),
    st.integers(1, 500),
)
def test_plan_reaches_its_quota_and_removes_no_newer_hour_before_an_older(
    rows: list[tuple[int, int]], size: int
) -> None:
    """The quota is reached as far as blobs may go, and by no more than one blob too many."""
    blobs = [blob(number, length, hours) for number, (length, hours) in enumerate(rows)]
    gone = removed(blobs, TierLimits(size=size))
    left = [each for each in blobs if each not in gone]
    may_go = [each for each in left if NOW - each.modified >= GRACE_SECONDS]
    total, target = sum(each.size for each in left), size - (size - int(size * LOW_WATER))
    if sum(each.size for each in blobs) <= size:
        assert gone == []
    else:
        assert total <= target or not may_go
        largest = max((each.size for each in gone), default=0)
        assert not gone or total + largest > target
    if gone and may_go:
        newest = max(each.modified // HOUR for each in gone)
        assert all(each.modified // HOUR >= newest for each in may_go)
