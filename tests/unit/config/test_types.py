"""Types of option values: parsing, printing, errors."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config.types import (
    FOREVER,
    Amount,
    DiskSpace,
    Duration,
    DurationOrForever,
    SecretStr,
    Size,
    format_amount,
    format_size,
    format_time,
    parse_size,
)
from mirror.config.validation import convert


def error(kind: Any, value: object) -> str:
    """Return the message about a refused value."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # its message is what is tested
        convert(value, kind)
    return str(refused.value)


@pytest.mark.parametrize(
    ("value", "of_a_thousand"),
    [("0", 0), (500, 500), ("1KiB", 1024), ("80%", 800), ("12.5%", 125), (Amount(7), 7)],
)
def test_disk_space_is_a_size_or_a_percentage(value: object, of_a_thousand: int) -> None:
    """Disk space may have any unit, or be a percentage of the file system."""
    assert convert(value, DiskSpace).of(1000) == of_a_thousand


@pytest.mark.parametrize("value", ["0%", "101%", "-5%", "5 %%", "much", "%", True])
def test_disk_space_of_another_form_is_refused(value: object) -> None:
    """The error has an example of a right value."""
    said = error(DiskSpace, value)
    assert "for instance 50GiB" in said or "not true or false" in said


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5.0),
        (1.5, 1.5),
        ("5", 5.0),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("2d", 172800.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        (" 1h 30m ", 5400.0),
        (0, 0.0),
    ],
)
def test_time_has_units(value: object, seconds: float) -> None:
    """A plain number is seconds, also as a string, which environment variables are."""
    for kind in (Duration, DurationOrForever):
        assert convert(value, kind) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["soon", "1 hour", "1w", "h", "", "-5s", "1h and 5m", "inf", True, "5M", "1H"]
)
def test_time_of_another_form_is_refused(value: object) -> None:
    """The error says how times are written."""
    assert error(Duration, value).startswith(
        "must be a time, for instance 500ms, 30s, 10m, 1h or 2d (a plain number is seconds), not "
    )
    assert ', or "forever", not ' in error(DurationOrForever, value)
    assert error(Duration, [value]).startswith("must be a time")


def test_time_may_be_forever() -> None:
    """TOML has no number for infinity that people would write; a timeout is always finite."""
    assert convert("forever", DurationOrForever) == FOREVER
    assert error(Duration, "forever").startswith("must be a time")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (60, "1m"),
        (90.0, "1m30s"),
        (3600, "1h"),
        (172800, "2d"),
        (0.5, "500ms"),
        (2.5, "2.5s"),
        (FOREVER, "forever"),
    ],
)
def test_time_prints_as_people_write_it(seconds: float, text: str) -> None:
    """Each unit appears at most once, the largest first."""
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (5, 5),
        (5.0, 5),
        ("5", 5),
        (" 5 MB ", 5_000_000),
        ("1.5KiB", 1536),
        ("1_000", 1000),
        (".5k", 500),
        ("5b", 5),
        ("2GiB", 2 * 1024**3),
        ("2gib", 2 * 1024**3),
        ("8kbit", 1000),
        ("8MIBIT", 1024**2),
        ("3E", 3 * 10**18),
    ],
)
def test_size_has_units(value: object, size: int) -> None:
    """A plain number is bytes, also as a string; the case of a unit does not matter."""
    assert convert(value, Size) == parse_size(value) == size


@pytest.mark.parametrize(
    "value", ["5ib", "5ki", "5 x", "5GiB x", "1e3", "-5", "", "80%", -1, 5.5, FOREVER, float("nan"), None, []]
)
def test_size_of_another_form_is_refused(value: object) -> None:
    """The error says how sizes are written."""
    assert error(Size, value).startswith("must be a size, for instance 50GiB, 500MB or 0 (")


def test_secret_is_not_printed() -> None:
    """A secret shows stars; two secrets are equal if their texts are."""
    secret = SecretStr("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret.get_secret_value() == "hunter2"
    assert secret == SecretStr("hunter2") != SecretStr("hunter1")
    assert len({secret, SecretStr("hunter2")}) == 1
    assert secret != "hunter2"


@given(st.integers(0, 10**9))
def test_time_parses_back(seconds: int) -> None:
    """A printed time is a valid value and has the same seconds."""
    assert convert(format_time(seconds), Duration) == seconds


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1KiB"),
        (64 * 1024**2, "64MiB"),
        (500_000_000, "500MB"),
        (1024**3, "1GiB"),
        (1_000_001, "1000001"),
    ],
)
def test_size_prints_as_people_write_it(size: int, text: str) -> None:
    """A size prints in the unit that gives the smallest whole number."""
    assert format_size(size) == format_amount(Amount(size)) == text
    assert format_amount(Amount(percent=12.5)) == "12.5%"


@given(st.one_of(st.integers(0, 10**15), st.integers(0, 5000).map(lambda n: n * 1024**2)))
def test_size_parses_back(size: int) -> None:
    """A printed size is a valid value and has the same bytes."""
    assert convert(format_size(size), Size) == size
