"""The file of pins: `<cache folder>/pins`, a line of JSON for each pin.

The file is separate from the index. A lost index can be recreated, because upstreams know its content;
nothing else knows the pins. The file is replaced as a whole, and an unreadable line costs no other line.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.util.durable import replace_file
from mirror.util.log import get_logger

log = get_logger(__name__)

# Origins of a pin.
CONFIGURATION, COMMAND = "configuration", "command"


class PinEntry(Struct, frozen=True):
    """A pin, and since when in epoch seconds; `configured`: the pin is of the configuration only."""

    pin: Pin
    since: float
    configured: bool


class PinFile:
    """The pins on disk. A writer holds `Evictor.lock`.

    A reader needs no lock, and finds the old file or the new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[PinEntry]:
        """Return the pins sorted by pattern, those of the configuration first. OSError."""
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = {(not each.configured, str(each.pin.images)): each for each in _parsed(lines)}
        return [found[key] for key in sorted(found)]

    def write(self, pins: Iterable[PinEntry]) -> None:
        """Replace the file; it is durable on return."""
        replace_file(self._path, "".join(f"{json.dumps(_as_json(each))}\n" for each in pins))


def _parsed(lines: Iterable[str]) -> Iterator[PinEntry]:
    for line in lines:
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            known = json.loads(line)
            pin = Pin(ImagePattern.printed(known["pattern"]), tuple(map(str, known["platforms"])))
            yield PinEntry(pin, float(known["since"]), known["from"] == CONFIGURATION)
            continue
        log.error("unreadable line in the file of pins, pin the image again", line=line)


def _as_json(entry: PinEntry) -> dict[str, object]:
    return {
        "pattern": str(entry.pin.images),
        "platforms": list(entry.pin.platforms),
        "since": entry.since,
        "from": origin(entry),
    }


def origin(entry: PinEntry) -> str:
    """Return the origin of a pin, as it is written and printed."""
    return CONFIGURATION if entry.configured else COMMAND
