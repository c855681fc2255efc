"""Bytes and durations in words."""

import pytest

from mirror.util.units import duration, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1536, "1.5 KiB"),
        (20 << 20, "20 MiB"),
        (1_500_000, "1.43 MiB"),
        (1023 * 1024, "0.999 MiB"),
        (200 * 1024**3, "200 GiB"),
        (3 << 40, "3 TiB"),
        (5000 * 1024**5, "5e+03 PiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    """Sizes have three digits, in units of 1024."""
    assert size(count) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0.04, "0.0 ms"), (9.94, "9.9 ms"), (12.3, "12 ms"), (61_500, "61.5 s")]
)
def test_duration(milliseconds: float, text: str) -> None:
    """Durations have two digits or more, in ms or s."""
    assert duration(milliseconds) == text
