"""State of scheduled runs: `<cache folder>/warm-runs`, which outlives the mirror."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from mirror.util.durable import replace_file

NAME = "warm-runs"

# Failed images that are kept with their reasons.
MOST_FAILURES = 20


class JobState(Struct, frozen=True):
    """The last run of a list; moments in seconds since the epoch, 0.0 for none.

    `due`: the moment of the schedule that was done last, or at which the list was first seen. `result`:
    "never", "running", "done" or "failed". `failures`: reasons by image, the first ones.
    """

    due: float
    began: float = 0.0
    ended: float = 0.0
    result: str = "never"
    images: int = 0
    failed: int = 0
    failures: dict[str, str] = {}


def read_states(folder: Path) -> dict[str, JobState]:
    """Return the states by name; none of a file that cannot be read."""
    with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode((folder / NAME).read_bytes(), type=dict[str, JobState])
    return {}


def write_states(folder: Path, states: Mapping[str, JobState]) -> None:
    """Replace the states. OSError."""
    document = {name: msgspec.to_builtins(each) for name, each in states.items()}
    replace_file(folder / NAME, json.dumps(document, indent=1) + "\n")
