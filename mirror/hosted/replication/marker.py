"""The mark of pushes that a mirror makes for its own replication: they are not passed on.

Two mirrors that replicate to each other would send a tag that was pushed to both to and fro forever.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "Registry-Mirror-Replica"

_REPLICA: ContextVar[bool] = ContextVar("replica", default=False)


@contextmanager
def noting_replica(headers: Mapping[str, str]) -> Iterator[None]:
    """Let `is_replica` tell of the request with these headers."""
    token = _REPLICA.set(HEADER in headers)
    try:
        yield
    finally:
        _REPLICA.reset(token)


def is_replica() -> bool:
    """Return whether the request that runs is one of another mirror's replication."""
    return _REPLICA.get()
