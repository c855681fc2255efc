"""Identity of a cache folder among the mirrors of a tier: random, written once into the folder.

Pins are written under it. Host name and path are no identity: two machines may have the same ones, and then
each replaced what the other had pinned. What a folder has written under its earlier name counts for a month.

A copy of the folder has the file too, and would be the same mirror. So the file names the folder's inode,
which a copy has not, and which stays when the folder is renamed or the machine starts again.
"""

import hashlib
import re
import secrets
import socket
from pathlib import Path

from mirror.util.durable import open_file, replace_file
from mirror.util.log import get_logger

log = get_logger(__name__)

NAME = "mirror-identity"

# The identity, and the inode of the folder, which files of earlier versions do not name.
_IDENTITY = re.compile(r"([0-9a-f]{32})(?: ([0-9]{1,20}))?\n")


def folder_identity(folder: Path) -> str:
    """Return the identity of a folder, which is made if there is none. Blocks; for the elected process alone.

    Of a folder that cannot be written: a name made of host and path.
    """
    path = folder / NAME
    try:
        inode = folder.stat().st_ino
        known, named = _read(path)
        if known and named not in (None, inode):
            log.warning(
                "cache folder is a copy, it is another mirror of the shared tier now", folder=str(folder)
            )
            known = None
        if known is None or named is None:
            replace_file(path, f"{known or secrets.token_hex(16)} {inode}\n")
            known, _ = _read(path)
    except OSError:
        known = None
    return known or _name_of_place(folder)


def _read(path: Path) -> tuple[str | None, int | None]:
    """Return the identity, and the inode of its folder; None for what the file does not say."""
    try:
        with open_file(path) as file:
            text = (file.read(64) or b"").decode("ascii", "replace")
    except FileNotFoundError:
        return None, None
    match = _IDENTITY.fullmatch(text)
    if match is None:
        return None, None
    return match[1], None if match[2] is None else int(match[2])


def _name_of_place(folder: Path) -> str:
    return hashlib.sha256(f"{socket.gethostname()} {folder}".encode()).hexdigest()[:32]
