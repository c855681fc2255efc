"""Identity of a cache folder among the mirrors of a tier: random, written once into the folder.

Pins are written under it. Host name and path are no identity: two machines may have the same ones, and then
each replaced what the other had pinned. What a folder has written under its earlier name counts for a month.
"""

import hashlib
import re
import secrets
import socket
from pathlib import Path

from mirror.util.durable import open_file, replace_file

NAME = "mirror-identity"

_IDENTITY = re.compile(r"[0-9a-f]{32}\n")


def folder_identity(folder: Path) -> str:
    """Return the identity of a folder, which is made if there is none. Blocks; for the elected process alone.

    Of a folder that cannot be written: a name made of host and path.
    """
    path = folder / NAME
    try:
        if (known := _read(path)) is None:
            replace_file(path, f"{secrets.token_hex(16)}\n")
            known = _read(path)
    except OSError:
        known = None
    return known or _name_of_place(folder)


def _read(path: Path) -> str | None:
    try:
        with open_file(path) as file:
            text = (file.read(64) or b"").decode("ascii", "replace")
    except FileNotFoundError:
        return None
    return text.strip() if _IDENTITY.fullmatch(text) else None


def _name_of_place(folder: Path) -> str:
    return hashlib.sha256(f"{socket.gethostname()} {folder}".encode()).hexdigest()[:32]
