"""Connections of all downloads from one object store together: as many as pay to all of them.

On a line that one connection fills, a second one takes its share from the downloads beside it: judged alone,
each download gains by more connections, until all have the most. What they receive together does not grow
then, and each of their readers has a smaller share for the bytes that it waits for.
"""

from msgspec import Struct

from mirror.transfer.plan import ConcurrencyLimit, PlanLimits

# Length of the windows over which the throughput of all downloads is compared, in seconds. Each download
# observes every 50 ms, at a time of its own.
WINDOW = 0.3

# Pause before more connections are tried again after they did not pay, in seconds: readers wait meanwhile.
RETRY_SECONDS = 10.0

# Time, in seconds, after which a download that has not observed is over, or waits for something else.
OVER_SECONDS = 0.5


class _Seen(Struct):
    """The last observation of a download."""

    now: float
    received: int
    flowing: int
    worked: float


class LineConcurrency:
    """The connections of all downloads together; they are shared out equally."""

    def __init__(self, most: int) -> None:
        """`most`: of all downloads."""
        self._most = most
        self._limit = ConcurrencyLimit(most, 1, PlanLimits(window=WINDOW, retry_seconds=RETRY_SECONDS))
        self._seen: dict[DownloadConcurrency, _Seen] = {}
        self._received = 0
        self._worked = 0.0

    def of_download(self, most: int) -> "DownloadConcurrency":
        """Return the part of one download, which is to have at most so many."""
        return DownloadConcurrency(self, most)

    def share(self, connections: int) -> int:
        """Return the part of each download, rounded up."""
        return -(-connections // max(1, len(self._seen)))

    @property
    def limit(self) -> ConcurrencyLimit:
        """The number of connections of all downloads."""
        return self._limit

    def record(self, download: "DownloadConcurrency", seen: _Seen) -> None:
        """Take note of what a download has observed."""
        before = self._seen.pop(download, None)
        self._seen[download] = seen  # the latest at the end
        while (oldest := next(iter(self._seen))) and seen.now - self._seen[oldest].now > OVER_SECONDS:
            del self._seen[oldest]
        if before is not None:
            self._received += seen.received - before.received
            self._worked += (seen.worked - before.worked) / len(self._seen)
        limit, wanted = self._limit, sum(each.level for each in self._seen)
        limit.most = min(self._most, sum(each.most for each in self._seen))
        flowing = sum(each.flowing for each in self._seen.values())
        # Spans are short: there is mostly one that has ended while the next one has not begun.
        limit.observe(seen.now, self._received, limit.level if 2 * flowing >= wanted else 0, self._worked)


class DownloadConcurrency:
    """The connections of one download."""

    def __init__(self, line: LineConcurrency, most: int) -> None:
        self.most = most
        self._line = line

    @property
    def level(self) -> int:
        return min(self.most, self._line.share(self._line.limit.level))

    @property
    def proven_level(self) -> int:
        return min(self.most, self._line.share(self._line.limit.proven_level))

    def observe(self, now: float, received: int, flowing: int, worked: float = 0.0) -> None:
        self._line.record(self, _Seen(now, received, flowing, worked))

    def likely(self, now: float) -> int:
        return min(self.most, self._line.share(self._line.limit.likely(now)))
