"""What an upstream lately said it does not have, so that it is not asked again at once.

A client that misses a tag asks twice (HEAD, then GET for the text), and Podman and cosign ask for signatures
that most images lack at every pull. Only NOT_FOUND is remembered: everything else may be over by then.
"""

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from mirror.upstream.errors import Failure, UpstreamError
from mirror.util.ttl_cache import TTLCache

K = TypeVar("K", bound=Hashable)

# Whoever asks for names that do not exist, at random and without end, fills this much and no more.
MOST = 10_000


class NegativeCache(Generic[K]):
    """Errors by key, each for `seconds`."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: TTLCache[K, UpstreamError] = TTLCache(seconds, MOST, clock)

    @contextmanager
    def remembering(self, key: K) -> Iterator[None]:
        """Raise what was raised here for `key` not long ago; else remember it, should it be raised now."""
        error = self._known.get(key)
        if error is not None:
            # A new one: an exception that is raised again and again collects the traces of all times.
            raise UpstreamError(error.failure, error.message, status=error.status)
        try:
            yield
        except UpstreamError as failed:
            if failed.failure is Failure.NOT_FOUND:
                self._known.put(key, failed)
            raise
