"""The face of all readers."""

from mirror.bundle.archives.archive import Kind


def test_kinds_have_words() -> None:
    """JSON output has them."""
    assert sorted(Kind) == ["bundle", "distribution", "layout"]
