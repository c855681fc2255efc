"""Ranges of versions."""

import pytest

from mirror.manage.warm.versions import VersionRange, version_of
from mirror.oci.reference import TAG

TAGS = (
    "latest",
    "3",
    "3.17.9",
    "3.18",
    "3.18.2",
    "3.20.0",
    "3.20.0-slim",
    "3.21.0-rc1",
    "v3.19",
    "4",
    "4.0.1",
)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        (">=3.18 <4", ["3.18", "3.18.2", "v3.19", "3.20.0"]),
        (">= 3.18, < 3.20", ["3.18", "3.18.2", "v3.19"]),
        ("^3.18.1", ["3.18.2", "v3.19", "3.20.0"]),
        ("~3.18", ["3.18", "3.18.2"]),
        ("~3", ["3", "3.17.9", "3.18", "3.18.2", "v3.19", "3.20.0"]),
        ("=3.20", ["3.20.0"]),
        ("==3.18.*", ["3.18", "3.18.2"]),
        ("^3 !=3.18", ["3", "3.17.9", "3.18.2", "v3.19", "3.20.0"]),
        (">=3.21.0rc1 <4", ["3.21.0-rc1"]),
        (">5", []),
    ],
)
def test_range_selects_versions(text: str, selected: list[str]) -> None:
    """The lowest comes first; tags that are no versions are left out."""
    assert VersionRange.parse(text).select(iter(TAGS)) == selected


@pytest.mark.parametrize(
    ("text", "within", "beyond"),
    [("^0.2.3", "0.2.9", "0.3.0"), ("^0.0.3", "0.0.3", "0.0.4"), ("^1.2", "1.9", "2.0")],
)
def test_caret_keeps_the_first_number_that_is_not_zero(text: str, within: str, beyond: str) -> None:
    assert VersionRange.parse(text).select(iter([within, beyond])) == [within]


@pytest.mark.parametrize("text", [">", ">=x.y", "3.18", "", ">=3 || <2", ">=3.18 latest", "^", "~~1"])
def test_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a range of versions"):
        VersionRange.parse(text)


@pytest.mark.parametrize("text", [">=3.18 <4", "^1", "~1", "=1", "!=1", "<2"])
def test_range_is_no_tag(text: str) -> None:
    """A range in the place of a tag cannot be misread."""
    assert TAG.fullmatch(text) is None


def test_version_of_a_tag() -> None:
    assert str(version_of("v1.2.0")) == "1.2.0"
    assert version_of("1.2-alpine") is None


def test_number_of_more_digits_than_python_takes_is_no_version() -> None:
    """A tag is shorter, but what an upstream lists need not be one."""
    assert version_of("9" * 5000) is None
