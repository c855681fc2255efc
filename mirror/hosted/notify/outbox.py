"""The queue of notifications: a file for each, in the order of their names, so that a crash loses none.

<cache folder>/webhooks/<nanoseconds>-<random>.json
"""

import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from mirror.util.durable import open_file, replace_file

FOLDER = "webhooks"

# Most notifications that wait, and that are read at a time.
MOST = 100_000
AT_A_TIME = 100

# Longest file, in bytes.
LONGEST = 64 * 1024


class OutboxFull(Exception):
    """There are MOST notifications, and a further one is not taken."""


class Queued(msgspec.Struct, frozen=True):
    """A notification. `hook`: whom it is for; `queued` and `due` in seconds since the epoch."""

    hook: str
    body: str
    queued: float
    attempts: int = 0
    due: float = 0.0


class Outbox:
    """The queue of one cache folder. Every method blocks. OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def add(self, message: Queued) -> str:
        """Queue a notification durably; return its identifier. Raises OutboxFull."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if len(self.names()) >= MOST:
            raise OutboxFull
        name = f"{int(message.queued * 1e9):020d}-{secrets.token_hex(8)}"
        self.put(name, message)
        return name

    def put(self, name: str, message: Queued) -> None:
        """Write a notification over its earlier state."""
        replace_file(self._path(name), msgspec.json.encode(message).decode())

    def names(self) -> list[str]:
        """Return the identifiers in order."""
        with suppress(FileNotFoundError):
            return sorted(each.stem for each in self._folder.glob("*.json"))
        return []

    def read(self, name: str) -> Queued | None:
        """Return a notification; None for one that is gone, or that cannot be read and is removed."""
        try:
            with open_file(self._path(name)) as file:
                return msgspec.json.decode(file.read(LONGEST) or b"", type=Queued)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            self.remove(name)
            return None

    def remove(self, name: str) -> None:
        """Forget a notification."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
