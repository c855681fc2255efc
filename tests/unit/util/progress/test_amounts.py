"""Amounts: what is missing, and results."""

from mirror.util.progress.amounts import ProgressAmount


def test_progress_amount_knows_what_is_missing() -> None:
    """Nothing is known without a total, and an amount beyond its total lacks nothing."""
    assert [ProgressAmount(3).missing, ProgressAmount(3, 10).missing, ProgressAmount(11, 10).missing] == [
        None,
        7,
        0,
    ]
