"""The options of limits: what is refused, and what becomes of them."""

from typing import Any

import pytest

from mirror.access.limits import Bounds, Per
from mirror.access.rules import parse_network
from mirror.config.limits import LimitSettings, limits_of


def settings(**values: Any) -> LimitSettings:
    return LimitSettings.model_validate({"name": "guests", **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "a limit without one does nothing"),
        ({"networks": ["10.0.0.0/8"]}, "a limit without one does nothing"),
        ({"bandwidth": 100}, "at least 16KiB per second"),
        ({"bandwidth": "1Kbit"}, "at least 16KiB per second"),
        ({"max_blob": "10KB"}, "at least 1MiB"),
        ({"requests": 0}, "more than 0"),
        ({"connections": 0}, "at least 1"),
        ({"fills": 0}, "at least 1"),
        ({"requests": 1, "burst": 0}, "at least 1"),
        ({"requests": 1, "per": "nobody"}, "must be"),
        ({"requests": 1, "identities": ["alice"]}, "is no identity"),
        ({"requests": 1, "networks": ["10.0.0.1/8"]}, "bits behind its prefix"),
    ],
)
def test_limit_that_is_a_mistake_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**values)


def test_limits_become_bounds_in_their_order() -> None:
    table = limits_of(
        [
            settings(requests=2.5),
            settings(
                name="all",
                per="all",
                identities=["user:*"],
                networks=["10.0.0.0/8"],
                connections=1,
                requests=2,
                burst=3,
                bandwidth="80Mbit",
                upstream_per_day="1GiB",
                max_blob="2MiB",
                fills=4,
            ),
        ]
    )
    first, second = table.limits
    assert (first.number, first.name, first.per, first.bounds) == (
        1,
        "guests",
        Per.CLIENT,
        Bounds(requests=2.5, burst=200),
    )
    assert second.bounds == Bounds(1, 2, 3, 10_000_000, 1024**3, 2 * 1024**2, 4)
    assert (second.per, second.identities, second.networks) == (
        Per.ALL,
        ("user:*",),
        (parse_network("10.0.0.0/8"),),
    )
