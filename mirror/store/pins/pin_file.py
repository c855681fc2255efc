"""The pins as they are written down: `<cache folder>/pins`, a line of JSON for each.

A file of its own, beside the books. Those can be lost and made anew, for upstreams know what is in them;
what was promised to stay nobody else knows. It is replaced as a whole, and a line that cannot be read costs
no other.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.util.durable import replace_file
from mirror.util.log import get_logger

log = get_logger(__name__)

# Whom a pin comes from.
CONFIGURATION, COMMAND = "configuration", "command"


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pin, and since when, in epoch seconds. `configured`: the configuration says so, and nobody else."""

    pin: Pin
    since: float
    configured: bool


class PinFile:
    """Whoever changes it holds `Folder.changing`; whoever reads it finds it as it was before or after."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Pinned]:
        """In the order of the patterns, those of the configuration first. OSError where it is not known."""
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = {(not each.configured, str(each.pin.images)): each for each in _parsed(lines)}
        return [found[key] for key in sorted(found)]

    def write(self, pins: Iterable[Pinned]) -> None:
        """On the disk when it returns."""
        replace_file(self._path, "".join(f"{json.dumps(_as_json(each))}\n" for each in pins))


def _parsed(lines: Iterable[str]) -> Iterator[Pinned]:
    for line in lines:
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            known = json.loads(line)
            pin = Pin(ImagePattern.printed(known["pattern"]), tuple(map(str, known["platforms"])))
            yield Pinned(pin, float(known["since"]), known["from"] == CONFIGURATION)
            continue
        log.error("a line of the file of pins cannot be read, pin it again", line=line)


def _as_json(pinned: Pinned) -> dict[str, object]:
    return {
        "pattern": str(pinned.pin.images),
        "platforms": list(pinned.pin.platforms),
        "since": pinned.since,
        "from": origin(pinned),
    }


def origin(pinned: Pinned) -> str:
    return CONFIGURATION if pinned.configured else COMMAND
