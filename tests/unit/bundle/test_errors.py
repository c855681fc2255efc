"""Messages of failures."""

from mirror.bundle.errors import BundleError, shown


def test_message_names_the_entry_on_one_line() -> None:
    """An entry's name cannot break a line or hide in a terminal."""
    assert (
        str(BundleError("refused", "a\n\x1b[2Jb"))
        == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2Jb: refused"
    )
    assert str(BundleError("refused")) == "refused"


def test_message_is_short_for_a_long_name() -> None:
    """A name of 64 KiB is cut."""
    assert len(shown("a" * 65536)) < 200
