"""Changes of pins, each under the lock of evictions and within the quota."""

from collections.abc import Sequence

from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.store.errors import PinTooLarge
from mirror.store.eviction import Evictor
from mirror.store.pins.pins import Pins


class Pinning:
    """Changes of the pins of one cache folder. Any thread; blocks."""

    def __init__(self, pins: Pins, evictor: Evictor) -> None:
        self._pins = pins
        self._evictor = evictor

    def pin(self, pin: Pin) -> int:
        """Keep what matches from now on; return how many bytes match, as far as they are known.

        Raises PinTooLarge, and then changes nothing.
        """
        with self._evictor.lock():
            kept, asked = self._pins.pinned_sizes(), self._pins.closure([pin])
            used, more = sum(kept.values()), sum(size for key, size in asked.items() if key not in kept)
            allowed = self._evictor.size_limit()
            if used + more > allowed:
                raise PinTooLarge(used, more, allowed)
            self._pins.add(pin)
            return sum(asked.values())

    def unpin(self, images: ImagePattern) -> bool:
        """Remove a pin; return whether there was such a pin. Pins of the configuration stay."""
        with self._evictor.lock():
            return self._pins.remove(images)

    def configure_pins(self, pins: Sequence[Pin]) -> None:
        """Replace the pins of the configuration by `pins`. Nothing is written if they are the same."""
        if self._pins.has_configured(pins):
            return
        with self._evictor.lock():
            self._pins.configure(pins)
