"""Exceptions that are kept let go of their frames."""

import weakref

import pytest

from mirror.util.tracebacks import reason_of, without_frames


class Body:
    """Something that a frame holds."""


def fail(held: Body, kind: type[Exception]) -> None:
    raise kind("no")


def caught(held: Body) -> Exception:
    """Return an error that was raised out of another one."""
    try:
        try:
            fail(held, KeyError)
        except KeyError as first:
            raise ValueError("second") from first
    except ValueError as second:
        return without_frames(second)
    raise AssertionError


def test_kept_exception_holds_no_frames() -> None:
    """Objects in its frames, and in those of the exception behind it, are freed; its lines are a note."""
    held = Body()
    freed = weakref.ref(held)
    error = caught(held)
    del held
    assert freed() is None
    assert isinstance(error.__cause__, KeyError)
    assert "test_tracebacks.py" in error.__notes__[0]
    assert "caught" in error.__notes__[0]


def suppressed() -> None:
    """Raise an error in the place of another one."""
    try:
        fail(Body(), KeyError)
    except KeyError:
        raise ValueError("second") from None


def test_kept_exception_drops_one_that_was_suppressed() -> None:
    """An exception raised `from None` does not keep the one it replaced."""
    with pytest.raises(ValueError, match="second") as raised:
        suppressed()
    assert without_frames(raised.value).__context__ is None


def test_exception_that_was_never_raised_is_left_as_it_is() -> None:
    """There is nothing to drop and nothing to note."""
    assert not hasattr(without_frames(ValueError("no")), "__notes__")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(2, "No such file or directory", "/x"), "No such file or directory: /x"),
        (OSError("cannot listen"), "cannot listen"),
        (ValueError(), "ValueError"),
    ],
)
def test_reason_has_no_errno(error: Exception, words: str) -> None:
    """An operator reads words, and the name of the file where there is one."""
    assert reason_of(error) == words
