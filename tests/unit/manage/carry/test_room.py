"""Room for an import, as said before anything goes for it."""

from pathlib import Path

import pytest

from mirror.manage.carry.room import room_for
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from tests.fakes.cached import X, open_folder, put_blob, put_image


def test_room_counts_what_is_new(tmp_path: Path) -> None:
    """Blobs that are here take no room; what exceeds the quota goes for the rest."""
    folder = open_folder(tmp_path / "cache", max_size=1000)
    here = put_blob(folder, b"x" * 600)
    room = room_for(folder, {here: 600, Digest.of(b"new"): 500}, pin=False)
    assert (room.new, room.pinned, room.allowed, room.evicted, room.fits) == (500, 0, 1000, 100, True)
    assert room_for(folder, {here: 600}, pin=False).evicted == 0
    assert room_for(folder, {here: 600, Digest.of(b"new"): 500}, pin=True).fits is False
    folder.close()


@pytest.mark.parametrize("pin", [False, True])
def test_room_beside_pins(tmp_path: Path, pin: bool) -> None:
    """Pinned images stay, so they are no room; those that the import has too count once."""
    folder = open_folder(tmp_path / "cache", max_size=10_000)
    image = put_image(folder, X, "1", [b"x" * 6000])
    folder.pinning.pin(Pin.parse("x:1"))
    pinned = sum(folder.pins.pinned_sizes().values())
    room = room_for(folder, {image[2]: 6000, Digest.of(b"new"): 1000}, pin=pin)
    assert (room.new, room.pinned, room.fits) == (1000, pinned, True)
    assert not room_for(folder, {Digest.of(b"new"): 10_000 - pinned + 1}, pin=pin).fits
    folder.close()
