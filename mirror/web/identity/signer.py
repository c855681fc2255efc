"""Tokens of the token service: signed, so that they outlive the worker that made them, and a restart.

    rmt1.<payload>.<signature>      the payload: what the token stands for, and until when

A token grants nothing. It stands for credentials that were verified, by their handles; what these may do is
decided at each request, and that they still exist.
"""

import hashlib
import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence

from msgspec import Struct

from mirror.web.identity.credentials import WrongCredentials

PREFIX = "rmt1."

# Time for which a token can be used, in seconds, as clients are told. docker and skopeo get another one after
# it; regctl, and podman in mid-pull, do not.
TOKEN_SECONDS = 3600

# Time after that for which it is taken: clients' clocks, and requests that wait behind others.
GRACE_SECONDS = 600

# Longest token that is read, in bytes.
TOKEN_BYTES = 4096


class Passed(Struct, frozen=True):
    """Meaning of a token: the handles of verified credentials, and the seconds for which it does."""

    handles: tuple[str, ...]
    seconds: float


class TokenSigner:
    """Maker and reader of tokens. `key`: 32 secret bytes. `clock`: seconds since the epoch."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self.key = key
        self._clock = clock

    def make(self, handles: Sequence[str]) -> str:
        """Return a token that stands for these handles; for nobody without any."""
        expires = int(self._clock()) + TOKEN_SECONDS + GRACE_SECONDS
        payload = _encode(json.dumps([expires, *handles], separators=(",", ":")).encode())
        return f"{PREFIX}{payload}.{self._signature(payload)}"

    def read(self, token: str) -> Passed:
        """Return what the token stands for. Raises WrongCredentials for one that is not ours or expired."""
        payload, dot, signature = token.removeprefix(PREFIX).partition(".")
        whole = len(token) <= TOKEN_BYTES and token.isascii() and token.startswith(PREFIX) and dot
        if not whole or not hmac.compare_digest(signature, self._signature(payload)):
            raise WrongCredentials("this mirror has not made this token: log in again")
        expires, *handles = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        seconds = expires - self._clock()
        if seconds <= 0:
            raise WrongCredentials("the token has expired")
        return Passed(tuple(handles), seconds)

    def _signature(self, payload: str) -> str:
        return _encode(hmac.digest(self.key, payload.encode(), hashlib.sha256))


def new_key() -> bytes:
    """Return a key of this process."""
    return secrets.token_bytes(32)


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
