"""Failures of the shared tier."""

from mirror.shared.errors import ObjectMissing, TierError, TierFault


def test_missing_object_is_a_failure_of_the_tier() -> None:
    """A caller that catches failures catches this one too."""
    error = ObjectMissing(TierFault.WRONG, "gone")
    assert isinstance(error, TierError)
    assert (str(error), error.fault) == ("gone", TierFault.WRONG)
