"""The quota: how many bytes are too many."""

from pathlib import Path

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
def test_quota_excess(quota: Quota, room: DiskRoom, excess: int) -> None:
    """The limit that asks for more counts."""
    assert quota.excess(room) == excess


def test_quota_shares_are_of_the_file_system(tmp_path: object) -> None:
    """Amounts in bytes stay as they are."""
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
def test_quota_size_limit(quota: Quota, room: DiskRoom, allowed: int) -> None:
    """All that the cache may hold, as things stand."""
    assert quota.size_limit(room) == allowed


@pytest.mark.parametrize(
    ("free", "used", "margin", "short"),
    [(20, 0, 0, True), (60, 40, 0, True), (60, 41, 0, False), (60, 41, 1, True)],
)
def test_shortage_when_min_free_leaves_nothing(free: int, used: int, margin: int, short: bool) -> None:
    """Cached bytes count as room: only a file system that others have filled leaves nothing."""
    assert (Quota(min_free=100).shortage(DiskRoom(1000, free, used), Path("/x"), margin) is not None) is short


def test_shortage_says_what_to_do() -> None:
    """The text names the room, the folder, the option and the way out."""
    shortage = Quota(max_size=5, min_free=1 << 30).shortage(DiskRoom(1 << 40, 20 << 20, 0), Path("/x"))
    assert str(shortage) == (
        "20 MiB are free in /x, and cache.min_free = 1 GiB leaves 0 B for the cache: nothing will be kept; "
        "free some space, or lower cache.min_free"
    )


def test_no_shortage_without_min_free() -> None:
    """Even a small file system keeps what fits when min_free is 0."""
    assert Quota().shortage(DiskRoom(1000, 1, 0), Path("/x")) is None
