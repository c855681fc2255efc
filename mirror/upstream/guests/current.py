"""The guest that a task works for: a client whose own credentials may be used for one repository."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from msgspec import Struct

from mirror.upstream.guests.guest_login import GuestLogin


class Guest(Struct, frozen=True):
    """A client whose own credentials may be used for a repository. `path` is that at the upstream.

    `account`: made of the credentials, with its tokens; kept by its guests alone.
    """

    upstream: str
    path: str
    credentials: GuestLogin
    account: object

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


# Tasks inherit it: a download goes on with the credentials of the client that has started it.
_guest: ContextVar[Guest | None] = ContextVar("guest", default=None)


@contextmanager
def serving_nobody() -> Iterator[None]:
    """Work for no guest, until `serve_guest`; afterwards for the guest from before.

    A connection has one task for all its requests: what one of them has set is not for the next one.
    """
    before = _guest.set(None)
    try:
        yield
    finally:
        _guest.reset(before)


def serve_guest(guest: Guest) -> None:
    """Work for a guest from now on, in this task and in those that it starts."""
    _guest.set(guest)


def current_guest() -> Guest | None:
    """Return the guest that the running task works for."""
    return _guest.get()


def asker() -> bytes:
    """Return a key that tells apart whose word about a refusal is remembered: empty for the mirror's own."""
    guest = _guest.get()
    return b"" if guest is None else guest.credentials.key()
