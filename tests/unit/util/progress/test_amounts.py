"""Amounts: what is missing, and results."""

from mirror.util.progress.amounts import Amount


def test_progress_amount_knows_what_is_missing() -> None:
    """Nothing is known without a total, and an amount beyond its total lacks nothing."""
    assert [Amount(3).missing, Amount(3, 10).missing, Amount(11, 10).missing] == [None, 7, 0]
