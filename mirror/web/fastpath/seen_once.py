"""Heads of requests that were seen once: what comes a second time is worth remembering."""

from collections.abc import Hashable


class SeenOnce:
    """The hashes of what was seen once; all are forgotten when there are `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._marks: set[int] = set()

    def again(self, thing: Hashable) -> bool:
        """Return whether the thing was seen before; from now on it was."""
        mark = hash(thing)
        if mark in self._marks:
            return True
        if len(self._marks) >= self._most:
            self._marks.clear()
        self._marks.add(mark)
        return False
