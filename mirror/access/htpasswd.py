"""Files of users and hashed passwords, as Apache's `htpasswd` writes them: a line `user:hash` for each.

Hashes of bcrypt and argon2 are taken. The older forms can be guessed at millions of passwords a second, so a
file with one is refused as a whole.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

# `$2y$` is what htpasswd writes, `$2b$` what most libraries do; all are the same hash. 53 characters of salt
# and hash follow the cost.
BCRYPT = re.compile(r"\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

# The form of the reference implementation: `$argon2id$v=19$m=65536,t=3,p=4$salt$hash`.
ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)\$v=[0-9]{1,3}\$m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,4})"
    r"\$[A-Za-z0-9+/]{11,128}\$[A-Za-z0-9+/]{16,172}"
)

# Costs that a login is worth: some seconds of one core, and a part of a small machine's memory.
BCRYPT_COST = range(4, 16)
ARGON2_KIB, ARGON2_PASSES, ARGON2_LANES = 256 * 1024, 64, 16

# Other forms, by how they begin, and what they are called.
WEAK = {
    "$apr1$": "MD5 ($apr1$)",
    "$1$": "MD5 ($1$)",
    "{SHA}": "SHA-1 ({SHA})",
    "$5$": "SHA-256 ($5$)",
    "$6$": "SHA-512 ($6$)",
}

# Largest file, in bytes: a hundred thousand users.
FILE_BYTES = 16 * 1024 * 1024

# Longest name of a user, in characters, and what no name may have in it.
USER_LENGTH = 255
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def read_htpasswd(path: Path) -> Mapping[str, str]:
    """Return the hash of each user in the file. Raises OSError or ValueError.

    A file that every user of the machine may write is refused: each of them could add a user.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
            raise ValueError("every user of this machine may write it: chmod o-rwx")
        data = file.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise ValueError(f"the file is larger than {FILE_BYTES} bytes")
    try:
        return parse_htpasswd(data.decode("utf-8-sig"))  # some editors of Windows write a byte order mark
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8") from None


def parse_htpasswd(text: str) -> Mapping[str, str]:
    """Return the hash of each user. Raises ValueError with the number of the line that is wrong."""
    users: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        user, _, hashed = line.partition(":")
        if (fault := _fault(user, hashed, users)) is not None:
            raise ValueError(f"line {number}: {fault}")
        users[user] = hashed
    return users


def _fault(user: str, hashed: str, users: Mapping[str, str]) -> str | None:
    """Return what is wrong with a line. A hash is never repeated: it may be a password."""
    if not user or not hashed:
        return "not USER:HASH, as `htpasswd -B FILE USER` writes it"
    if len(user) > USER_LENGTH or UNPRINTABLE.search(user):
        return f"the user's name has unprintable characters, or more than {USER_LENGTH}"
    if user in users:
        return f"user {user!r} is there twice: remove one of the lines"
    if (strong := BCRYPT.fullmatch(hashed)) is not None:
        return None if int(strong[1]) in BCRYPT_COST else _too_costly(user, f"a cost of {strong[1]}")
    if (tuned := ARGON2.fullmatch(hashed)) is not None:
        memory, passes, lanes = (int(each) for each in tuned.groups())
        fits = memory <= ARGON2_KIB and passes <= ARGON2_PASSES and 1 <= lanes <= ARGON2_LANES
        return None if fits else _too_costly(user, f"m={memory},t={passes},p={lanes}")
    form = next((name for start, name in WEAK.items() if hashed.startswith(start)), "no hash that is known")
    return f"the password of {user!r} is {form}; bcrypt and argon2 are taken: `htpasswd -B FILE {user}`"


def _too_costly(user: str, cost: str) -> str:
    return (
        f"the password of {user!r} is hashed with {cost}, and at most {BCRYPT_COST[-1]} (bcrypt) or "
        f"m={ARGON2_KIB},t={ARGON2_PASSES},p={ARGON2_LANES} (argon2) is verified here"
    )
