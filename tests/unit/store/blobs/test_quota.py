"""How much is too much."""

import pytest

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.store.blobs.quota import DiskRoom, Quota


@pytest.mark.parametrize(
    ("quota", "room", "excess"),
    [
        (Quota(), DiskRoom(1000, 0, 1000), 0),
        (Quota(max_size=100), DiskRoom(1000, 500, 130), 30),
        (Quota(max_size=100), DiskRoom(1000, 500, 100), 0),
        (Quota(min_free=50), DiskRoom(1000, 20, 900), 30),
        (Quota(min_free=50), DiskRoom(1000, 50, 900), 0),
        (Quota(max_size=100, min_free=50), DiskRoom(1000, 20, 110), 30),
        (Quota(max_size=100, min_free=50), DiskRoom(1000, 45, 140), 40),
    ],
)
def test_excess(quota: Quota, room: DiskRoom, excess: int) -> None:
    """Whichever limit asks for more."""
    assert quota.excess(room) == excess


def test_shares_are_of_the_file_system(tmp_path: object) -> None:
    """And amounts are what they are."""
    settings = CacheSettings.model_validate({"dir": "/x", "max_size": "80%", "min_free": "1KiB"})
    assert Quota.for_disk(settings, 1000) == Quota(800, 1024, float("inf"))
    assert (str(settings.max_size), str(settings.min_free)) == ("80%", "1024")
    assert Amount(percent=12.5).of(1000) == 125


@pytest.mark.parametrize(
    ("quota", "room", "allowed"),
    [
        (Quota(max_size=100), DiskRoom(1000, 500, 30), 100),
        (Quota(min_free=50), DiskRoom(1000, 500, 30), 480),
        (Quota(max_size=600, min_free=50), DiskRoom(1000, 500, 30), 480),
        (Quota(max_size=600, min_free=900), DiskRoom(1000, 500, 30), 0),
    ],
)
def test_what_is_allowed(quota: Quota, room: DiskRoom, allowed: int) -> None:
    """All that the cache may ever hold, as things stand."""
    assert quota.size_limit(room) == allowed
