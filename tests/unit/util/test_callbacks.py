"""Defaults for callbacks."""

from mirror.util.callbacks import ignore


def test_ignore_takes_any_arguments() -> None:
    """The default of a callback accepts what any callback of ours is called with."""
    for arguments in ((), (1,), ("a", [2], None)):
        ignore(*arguments)
