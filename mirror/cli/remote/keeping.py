"""`pin`, `unpin`, `pins` and `warm` at a running mirror."""

import time

from mirror.cli.common import fail
from mirror.cli.output import json_list, moment, say, table, tell
from mirror.cli.remote.admin_client import Unfit
from mirror.cli.remote.connection import Remote
from mirror.util.units import size

# Interval, in seconds, at which a mirror is asked again that has other images to fetch.
RETRY_SECONDS = 2.0

# The status of such an answer.
BUSY = 409


def pin(remote: Remote, reference: str, platforms: list[str], *, fetch: bool) -> None:
    """Pin an image; with `fetch`, begin to fetch what is missing of it."""
    name = remote.image(reference)
    done = remote.client.change("POST", "pins", {"reference": name, "platforms": platforms})
    kept = (
        size(done["bytes"]) if done["bytes"] else "nothing of it is there yet, it is kept once it is pulled"
    )
    say(f"pinned {done['pattern']}: {kept}")
    if fetch:
        _fetch(remote, name, platforms)


def unpin(remote: Remote, reference: str) -> None:
    """Remove a pin. The command ends with 1 if there is none."""
    name = remote.image(reference)
    if not remote.client.change("DELETE", "pins", {"reference": name})["removed"]:
        fail(f"there is no pin {name} that a command has made: registry-mirror pins --server URL", 1)
    say(f"unpinned {name}")


def pins(remote: Remote, *, as_json: bool) -> None:
    """Print the pins."""
    found = remote.get("pins")
    if as_json:
        json_list(found)
        return
    if not found:
        tell("Nothing is pinned there.")
        return
    rows = [
        (
            str(each["pattern"]),
            ", ".join(each["platforms"]) or "all",
            moment(each["since"]),
            "configuration" if each["configured"] else "command",
        )
        for each in found
    ]
    table(("PATTERN", "PLATFORMS", "SINCE", "FROM"), rows, optional=("SINCE",))


def warm(remote: Remote, images: list[str], platforms: list[str]) -> None:
    """Let the mirror fetch images; the command ends when each has begun."""
    for each in [remote.image(text) for text in images]:
        _fetch(remote, each, platforms)
    tell("The mirror goes on by itself: registry-mirror top --server URL shows its downloads.")


def warm_status(remote: Remote, *, as_json: bool) -> None:
    """Print the lists that are fetched on a schedule."""
    found = remote.get("warm")
    if as_json:
        json_list(found)
        return
    if not found:
        tell("The configuration there has no [[warm]] tables.")
        return
    rows = [
        (str(each["name"]), str(each["schedule"]), moment(each["last_ended"]), str(each["result"]))
        for each in found
    ]
    table(("NAME", "SCHEDULE", "LAST RUN", "RESULT"), rows)


def _fetch(remote: Remote, name: str, platforms: list[str]) -> None:
    """Let the mirror fetch an image, after those that it is fetching."""
    while True:
        try:
            remote.client.change("POST", "warm", {"reference": name, "platforms": platforms})
        except Unfit as error:
            if error.status != BUSY:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            say(f"fetching {name}")
            return
