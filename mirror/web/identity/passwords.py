"""Verification of passwords against their hashes: blocking, for a thread."""

import re

from mirror.access.htpasswd import BCRYPT

# What bcrypt reads of a password. `htpasswd` cuts a longer one there without a word when it hashes it, so a
# longer one is cut here too.
BCRYPT_BYTES = 72

# Longest password, in bytes, that is hashed at all.
PASSWORD_BYTES = 1024

# Letters of bcrypt's digest, behind the salt.
DIGEST_LENGTH = 31

# A hash of bcrypt that no password has, for a file without users.
NO_HASH = "$2b$05$" + "." * 53


def is_password(hashed: str, password: str) -> bool:
    """Return whether the password is the one that was hashed. Takes up to seconds; never raises."""
    data = password.encode("utf-8", "surrogatepass")
    if len(data) > PASSWORD_BYTES:
        return False
    return _is_bcrypt(hashed, data) if BCRYPT.fullmatch(hashed) else _is_argon2(hashed, data)


def unknown_user(like: str | None) -> str:
    """Return a hash that no password has, and that takes as long to verify as the hash `like`.

    So the time of an answer does not tell which users there are.
    """
    if like is None:
        return NO_HASH
    if BCRYPT.fullmatch(like):
        return like[:-DIGEST_LENGTH] + "." * DIGEST_LENGTH
    front, _, digest = like.rpartition("$")
    return f"{front}${'A' * len(digest)}"


def _is_bcrypt(hashed: str, password: bytes) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:BCRYPT_BYTES], re.sub("^.2[axy]", "$2b", hashed).encode())
    except ValueError:  # an invalid salt
        return False


def _is_argon2(hashed: str, password: bytes) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError
    from argon2.low_level import Type, verify_secret

    kinds = {"d": Type.D, "i": Type.I, "id": Type.ID}
    kind = kinds.get(hashed.split("$")[1].removeprefix("argon2"))
    try:
        return kind is not None and verify_secret(hashed.encode(), password, kind)
    except (VerificationError, InvalidHashError):
        return False
