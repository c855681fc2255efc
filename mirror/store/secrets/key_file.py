"""A secret key of this mirror: a file for its owner alone, made by the first process that needs it."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

KEY_BYTES = 32

# All that others than the owner could do with the file.
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def load_key(path: Path) -> bytes:
    """Return the key in the file, or a new one if there is none that is usable. Raises OSError.

    A key that others could read, or of another length, is replaced: what was signed with it ends.
    """
    if (key := _read(path)) is not None:
        return key
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        _write(temporary, secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):  # another process was faster
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    key = _read(path)
    if key is None:
        raise PermissionError(f"{path} is not a file that its owner alone can read: remove it")
    return key


def _read(path: Path) -> bytes | None:
    """Return the key; None without a usable one. An unusable file is removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb", closefd=True) as file:
        status = os.fstat(descriptor)
        key = file.read(KEY_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    mine = status.st_uid == os.stat(path.parent).st_uid
    if len(key) == KEY_BYTES and mine and not status.st_mode & OTHERS:
        return key
    path.unlink()
    return None


def _write(path: Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", closefd=True) as file:
        file.write(key)
        file.flush()
        os.fsync(descriptor)
        if os.geteuid() == 0:
            owner = os.stat(path.parent)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
