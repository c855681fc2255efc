"""Plain lists."""

from mirror.manage.warm.listed import ListEntry
from mirror.manage.warm.plain import read_plain


def test_plain_list_has_one_image_a_line() -> None:
    """Comments and empty lines are left out; a range may have blanks."""
    text = "# images\n\nalpine:3.20   # the base\r\n  busybox\nalpine:>=3.18 <4\n#x\n"
    assert read_plain(text, "list") == read_plain(text, "list")
    assert read_plain(text, "list").entries == [
        ListEntry("alpine:3.20", "list:3"),
        ListEntry("busybox", "list:4"),
        ListEntry("alpine:>=3.18 <4", "list:5"),
    ]
