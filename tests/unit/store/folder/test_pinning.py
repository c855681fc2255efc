"""Pins within the quota."""

from pathlib import Path

import pytest

from mirror.oci.image_pattern import Pin
from mirror.oci.reference import Repository
from mirror.store.errors import PinTooLarge
from tests.fakes.cached import open_folder, put_image

X = Repository("docker.io", "library/x")


def test_pin_above_the_quota_is_refused(tmp_path: Path) -> None:
    """A refused pin gives the numbers and changes nothing; content that is pinned already counts once."""
    folder = open_folder(tmp_path / "cache", max_size=10_000)
    shared = bytes(4000)
    put_image(folder, X, "1", [shared])
    put_image(folder, X, "2", [shared, b"2" * 3000])
    put_image(folder, X, "3", [b"3" * 4000])
    folder.pinning.pin(Pin.parse("x:1"))
    folder.pinning.pin(Pin.parse("x:2"))
    with pytest.raises(PinTooLarge) as refused:
        folder.pinning.pin(Pin.parse("x:3"))
    assert refused.value.allowed == 10_000
    assert refused.value.used + refused.value.asked > 10_000
    assert 7000 < refused.value.used < 10_000
    assert [str(each.pin.images.tag) for each in folder.pins.all()] == ["1", "2"]
    folder.close()
