"""Pins through the facade."""

from mirror.manage.management import Management
from mirror.oci.image_pattern import Pin


async def test_management_pins(management: Management) -> None:
    """Pin, sizes, list, unpin."""
    pin = Pin.of("x:1", [], {})
    kept = await management.pins.add(pin)
    assert await management.pins.sizes(pin) == (kept, kept)
    assert [str(each.pin.images) for each in await management.pins.all()] == ["docker.io/library/x:1"]
    assert [await management.pins.remove(pin.images) for _ in range(2)] == [True, False]
