"""Defaults for callbacks that a caller may leave out."""


def ignore(*_: object) -> None:
    """Do nothing, with any arguments."""


def never() -> bool:
    """Return False."""
    return False


def zero() -> int:
    """Return 0."""
    return 0
