"""Progress of a whole operation, added up from that of its images; pure: the clock is passed in.

An operation yields an `ImageProgress` whenever an image is further, and a last one with its result. The
command that shows the progress adds these up in a `Progress`.
"""

from typing import Literal

from msgspec import Struct

from mirror.util.progress.amounts import ImageProgress, ProgressAmount
from mirror.util.progress.rate import RateWindow


class Totals(Struct, frozen=True):
    """The progress of a whole operation.

    `rate`: bytes per second. `seconds_left`: None while that cannot be told.
    """

    bytes: ProgressAmount
    items: ProgressAmount
    images: ProgressAmount
    failed: int
    rate: float
    seconds_left: float | None


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
            images=ProgressAmount(len(self._ended), self.images),
            failed=sum(each.state == "failed" for each in self._ended.values()),
            rate=rate,
            seconds_left=missing / rate if missing is not None and rate > 0 else None,
        )

    def _sum(self, what: Literal["bytes", "items"]) -> ProgressAmount:
        """Add up an amount; its total is known once that of each image is.

        An image that has ended lacks nothing, even if it failed.
        """
        running: list[ProgressAmount] = [getattr(each, what) for each in self._running.values()]
        ended = sum(getattr(each, what).done for each in self._ended.values())
        done = ended + sum(each.done for each in running)
        announced = self.images is not None and len(self._running) + len(self._ended) >= self.images
        totals = [each.total for each in running]
        if not announced or None in totals:
            return ProgressAmount(done)
        return ProgressAmount(done, ended + sum(total for total in totals if total is not None))
