"""Progress of long operations: bytes and items, per image and in all, with rate and time left; pure.

An operation yields an `ImageProgress` whenever an image is further, and a last one with its result. The
command that shows the progress adds these up in a `Progress`, with the clock passed in.
"""

from collections import deque
from typing import Literal

from msgspec import Struct

# The rate is that of this many seconds, so that it follows a connection that becomes slow or fast.
WINDOW_SECONDS = 10.0

# Samples of the window are at least this many seconds apart, which bounds their number.
SAMPLE_SECONDS = 0.25

# State of an image; the last three are results.
State = Literal["waiting", "running", "done", "present", "failed"]
RESULTS = frozenset({"done", "present", "failed"})


class Amount(Struct, frozen=True):
    """An amount that is `done`, of `total`; None for a total that is not known yet."""

    done: int = 0
    total: int | None = None

    @property
    def missing(self) -> int | None:
        """The amount that is to be done yet; None if that is not known."""
        return None if self.total is None else max(0, self.total - self.done)


class ImageProgress(Struct, frozen=True):
    """The progress of one image, or of another part of an operation that has a name.

    `bytes` and `items` (blobs and manifests) are those that the operation has to move; "present": there was
    nothing to move. `reason`: why it failed.
    """

    name: str
    bytes: Amount = Amount()
    items: Amount = Amount()
    state: State = "running"
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Return whether this is the result."""
        return self.state in RESULTS


class Totals(Struct, frozen=True):
    """The progress of a whole operation.

    `rate`: bytes per second. `seconds_left`: None while that cannot be told.
    """

    bytes: Amount
    items: Amount
    images: Amount
    failed: int
    rate: float
    seconds_left: float | None


class RateWindow:
    """The rate over the last WINDOW_SECONDS, from samples of a growing number."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Note that `done` is reached at `now`."""
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < SAMPLE_SECONDS:
            samples.pop()
        samples.append((now, done))
        while len(samples) > 2 and samples[1][0] <= now - WINDOW_SECONDS:
            samples.popleft()

    def rate(self, now: float) -> float:
        """Return the rate until `now`, in units per second; 0.0 before there are two samples."""
        if not self._samples:
            return 0.0
        (began, first), (_, last) = self._samples[0], self._samples[-1]
        return max(0, last - first) / (now - began) if now > began else 0.0


class Progress:
    """The progress of all images of an operation; `images`: how many there are, None if not known yet."""

    def __init__(self, images: int | None = None) -> None:
        self.images = images
        self._running: dict[str, ImageProgress] = {}
        self._ended: dict[str, ImageProgress] = {}
        self._window = RateWindow()

    def update(self, image: ImageProgress, now: float) -> None:
        """Note the progress of an image at `now`, a number of seconds that grows."""
        self._ended.pop(image.name, None)
        self._running.pop(image.name, None)
        (self._ended if image.ended else self._running)[image.name] = image
        self._window.add(now, self._sum("bytes").done)

    def running(self) -> list[ImageProgress]:
        """Return the images that have begun and not ended, the one with the latest update last."""
        return [each for each in self._running.values() if each.state == "running"]

    def results(self) -> list[ImageProgress]:
        """Return the images that have ended."""
        return list(self._ended.values())

    def totals(self, now: float) -> Totals:
        """Return the progress of the whole operation."""
        sizes, rate = self._sum("bytes"), self._window.rate(now)
        missing = sizes.missing
        return Totals(
            bytes=sizes,
            items=self._sum("items"),
            images=Amount(len(self._ended), self.images),
            failed=sum(each.state == "failed" for each in self._ended.values()),
            rate=rate,
            seconds_left=missing / rate if missing is not None and rate > 0 else None,
        )

    def _sum(self, what: Literal["bytes", "items"]) -> Amount:
        """Add up an amount; its total is known once that of each image is.

        An image that has ended lacks nothing, even if it failed.
        """
        running: list[Amount] = [getattr(each, what) for each in self._running.values()]
        ended = sum(getattr(each, what).done for each in self._ended.values())
        done = ended + sum(each.done for each in running)
        announced = self.images is not None and len(self._running) + len(self._ended) >= self.images
        totals = [each.total for each in running]
        if not announced or None in totals:
            return Amount(done)
        return Amount(done, ended + sum(total for total in totals if total is not None))
