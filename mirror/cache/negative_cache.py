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
from mirror.upstream.guests.current import asker
from mirror.util.ttl_cache import TTLCache

K = TypeVar("K", bound=Hashable)

# The most entries: a client that asks for random names without end fills this many and no more.
MOST = 10_000

# The most variants of one key: a client that makes up types for Accept displaces no other entries. Beyond
# them an error is not remembered, and the upstream is asked again.
MOST_VARIANTS = 4


class NegativeCache(Generic[K]):
    """Errors by key and variant, each for `seconds`: those of `failures`.

    A variant is what else the upstream was asked by: the media types that only this client takes; and the
    client itself, where it was asked with credentials of the client's own.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        failures: Collection[Failure] = (Failure.NOT_FOUND,),
    ) -> None:
        self._failures = failures
        self._seconds = seconds
        self._clock = clock
        self._known: TTLCache[K, dict[Hashable, tuple[float, UpstreamError]]] = TTLCache(seconds, MOST, clock)

    @contextmanager
    def remembering(self, key: K, variant: Hashable = None) -> Iterator[None]:
        """Raise the error remembered for `key`; without one, remember the error that the block raises."""
        variant = (variant, asker())
        if (found := self._variants(key).get(variant)) is not None:
            error = found[1]
            # A new exception: one that is raised again and again collects the tracebacks of all its raises.
            raise UpstreamError(error.failure, error.message, status=error.status)
        try:
            yield
        except UpstreamError as failed:
            if failed.failure in self._failures:
                self._remember(key, variant, failed.copy())
            raise

    def _variants(self, key: K) -> dict[Hashable, tuple[float, UpstreamError]]:
        """Return the errors of a key by variant, with the time at which each is forgotten."""
        known, now = self._known.get(key), self._clock()
        return {} if known is None else {each: found for each, found in known.items() if now < found[0]}

    def _remember(self, key: K, variant: Hashable, error: UpstreamError) -> None:
        variants = self._variants(key)
        if variant in variants or len(variants) < MOST_VARIANTS:
            variants[variant] = (self._clock() + self._seconds, error)
            self._known.put(key, variants)
