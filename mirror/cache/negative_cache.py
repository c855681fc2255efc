"""Negative cache: what an upstream lately reported as not found, so that it is not asked again at once.

A client that misses a tag asks twice (HEAD, then GET for the error text), and Podman and cosign ask at every
pull for signatures that most images lack. Only NOT_FOUND is remembered, and for access DENIED: all other
errors may soon be over.
"""

import time
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from mirror.upstream.errors import Failure, UpstreamError
from mirror.util.ttl_cache import TTLCache

K = TypeVar("K", bound=Hashable)

# The most entries: a client that asks for random names without end fills this many and no more.
MOST = 10_000


class NegativeCache(Generic[K]):
    """Errors by key, each for `seconds`: those of `failures`."""

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        failures: Collection[Failure] = (Failure.NOT_FOUND,),
    ) -> None:
        self._failures = failures
        self._known: TTLCache[K, UpstreamError] = TTLCache(seconds, MOST, clock)

    @contextmanager
    def remembering(self, key: K) -> Iterator[None]:
        """Raise the error remembered for `key`; without one, remember the error that the block raises."""
        error = self._known.get(key)
        if error is not None:
            # A new exception: one that is raised again and again collects the tracebacks of all its raises.
            raise UpstreamError(error.failure, error.message, status=error.status)
        try:
            yield
        except UpstreamError as failed:
            if failed.failure in self._failures:
                self._known.put(key, failed.copy())
            raise
