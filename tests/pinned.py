"""Newer clients than Debian's, at pinned versions: `.ci/clients` makes them, outside the tree."""

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / ".ci" / "clients"


@dataclass(frozen=True)
class Pinned:
    """A client of `.ci/clients`, installed or not."""

    name: str
    version: str
    folder: Path

    @property
    def installed(self) -> bool:
        return self.folder.is_dir()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@cache
def pinned() -> dict[str, Pinned]:
    """Return every pinned client by its name."""
    listed = subprocess.run([SCRIPT, "--list"], check=True, capture_output=True, text=True).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    return {name: Pinned(name, version, Path(folder)) for name, version, folder in rows}


def missing() -> list[Pinned]:
    """Return the clients that this machine lacks."""
    return [client for client in pinned().values() if not client.installed]
