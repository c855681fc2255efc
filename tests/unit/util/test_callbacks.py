"""Defaults for callbacks."""

from mirror.util.callbacks import ignore, never, zero


def test_ignore_takes_any_arguments() -> None:
    """The default of a callback accepts what any callback of ours is called with."""
    for arguments in ((), (1,), ("a", [2], None)):
        ignore(*arguments)


def test_never_and_zero_answer_what_they_are_named_for() -> None:
    """Callers test these answers, so each has its type."""
    assert never() is False
    assert (zero(), type(zero())) == (0, int)
