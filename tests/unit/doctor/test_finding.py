"""Findings: the exit status, and the same one of many."""

from mirror.doctor.finding import error, fine, merged, status, warning


def test_status_is_that_of_the_worst_finding() -> None:
    """0 for none and for what is fine, 1 for a warning, 2 for an error."""
    good, bad, worse = fine("a", "x"), warning("a", "x", "y", "z"), error("a", "x", "y", "z")
    assert [status(each) for each in ([], [good], [good, bad], [bad, worse, good])] == [0, 0, 1, 2]


def test_findings_of_one_kind_are_one() -> None:
    """The subjects are put together, once each, with the first remedy; other findings stay apart."""
    found = merged(
        [
            error("a", "no name", "w", "getent a"),
            error("b", "no name", "w", "getent b"),
            error("a", "no name", "w", "getent a"),
            fine("c", "no name"),
        ]
    )
    assert found == [error("a, b", "no name", "w", "getent a"), fine("c", "no name")]
