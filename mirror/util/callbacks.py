"""Defaults for callbacks that a caller may leave out."""


def ignore(*_: object) -> None:
    """Do nothing, with any arguments."""
