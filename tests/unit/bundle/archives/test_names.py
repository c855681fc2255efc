"""Names of entries."""

import pytest

from mirror.bundle.archives.names import safe_name
from mirror.bundle.errors import EntryRefused


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"index.json", "index.json"),
        (b"./index.json", "index.json"),
        (b"././blobs/sha256/", "blobs/sha256"),
        (b"./", ""),
        (b".", ""),
        ("ä/b c".encode(), "ä/b c"),
        (b"..a/b..", "..a/b.."),
    ],
)
def test_name_is_normalised(raw: bytes, name: str) -> None:
    """Tars begin their names in several ways."""
    assert safe_name(raw) == name


@pytest.mark.parametrize(
    "raw",
    [
        b"/etc/passwd",
        b"//a",
        b"../a",
        b"a/../b",
        b"a/..",
        b"..",
        b"a//b",
        b"a/./b",
        b"a\\b",
        b"a\nb",
        b"a\x1b[0m",
        b"\xff\xfe",
        b"a" * 5000,
        "a\u202eb".encode(),
    ],
)
def test_name_that_is_unsafe_is_refused(raw: bytes) -> None:
    """The message shows it without control characters."""
    with pytest.raises(EntryRefused) as caught:
        safe_name(raw)
    assert str(caught.value).isprintable()
