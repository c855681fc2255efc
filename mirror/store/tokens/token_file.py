"""The files of tokens, each a line of JSON for each token.

    <cache folder>/tokens        the tokens; written by `registry-mirror token create` and `revoke` alone
    <cache folder>/token-uses    the last use of each; written by the workers, and no loss
    <cache folder>/tokens-revoked   digests of the secrets of tokens that were revoked, for other mirrors

None has a secret in it. All are replaced as a whole, and an unreadable line costs no other line.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from mirror.access.tokens import NAME, TokenEntry
from mirror.util.durable import open_file, replace_file
from mirror.util.log import get_logger

log = get_logger(__name__)

# Longest file that is read, in bytes: a hundred thousand tokens.
LONGEST = 32 * 1024 * 1024

DIGEST = re.compile("[0-9a-f]{64}")

# What tells one version of a file from another: device, inode, size, and time of the last change.
Signature = tuple[int, int, int, int]


def read_tokens(path: Path) -> list[TokenEntry]:
    """Return the tokens sorted by name; none without a file. OSError."""
    found = {each.name: each for each in _parsed(_lines(path))}
    return [found[name] for name in sorted(found)]


class TokenUse(msgspec.Struct, frozen=True):
    """A line of `token-uses`: the digest of a secret, and its last use in seconds since the epoch."""

    sha256: str
    used: float


def write_tokens(path: Path, tokens: Iterable[TokenEntry]) -> None:
    """Replace the file; it is durable on return. OSError."""
    replace_file(path, "".join(f"{msgspec.json.encode(each).decode()}\n" for each in tokens))


def read_uses(path: Path) -> dict[str, float]:
    """Return the last use of each token by the digest of its secret, in seconds since the epoch. OSError."""
    found: dict[str, float] = {}
    for line in _lines(path):
        with suppress(msgspec.MsgspecError):
            known = msgspec.json.decode(line, type=TokenUse)
            found[known.sha256] = known.used
    return found


def write_uses(path: Path, uses: Mapping[str, float]) -> None:
    """Replace the file. OSError."""
    lines = msgspec.json.Encoder().encode_lines([TokenUse(*use) for use in uses.items()])
    replace_file(path, lines.decode())


def read_digests(path: Path) -> list[str]:
    """Return the digests of a file with one in each line. OSError."""
    return [each for each in _lines(path) if DIGEST.fullmatch(each)]


def write_digests(path: Path, digests: Iterable[str]) -> None:
    """Replace the file; it is durable on return. OSError."""
    replace_file(path, "".join(f"{each}\n" for each in digests))


def signature(path: Path) -> Signature | None:
    """Return what tells this version of a file from others; None without a file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _lines(path: Path) -> list[str]:
    try:
        with open_file(path) as file:
            data = file.read(LONGEST + 1) or b""
    except FileNotFoundError:
        return []
    if len(data) > LONGEST:
        raise OSError(f"{path} is longer than {LONGEST} bytes")
    return data.decode(errors="replace").splitlines()


def _parsed(lines: Iterable[str]) -> Iterator[TokenEntry]:
    for number, line in enumerate(lines, 1):
        with suppress(msgspec.MsgspecError):
            entry = msgspec.json.decode(line, type=TokenEntry)
            if NAME.fullmatch(entry.name) and DIGEST.fullmatch(entry.sha256):
                yield entry
                continue
        log.error("unreadable line in the file of tokens, create the token again", line=number)
