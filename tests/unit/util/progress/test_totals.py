"""Totals: sums over images, and the time that is left."""

from mirror.util.progress.amounts import ImageProgress, ProgressAmount
from mirror.util.progress.totals import Progress


def test_progress_sums_images() -> None:
    """The time left is told once the total of each image is known, and the images are all announced."""
    progress = Progress(images=2)
    progress.update(ImageProgress("a", ProgressAmount(0, 1000), ProgressAmount(0, 3)), 0.0)
    assert progress.totals(0.0).bytes == ProgressAmount(0)
    progress.update(ImageProgress("b", ProgressAmount(0), ProgressAmount(0)), 0.0)
    assert progress.totals(0.0).seconds_left is None
    progress.update(ImageProgress("b", ProgressAmount(0, 500), ProgressAmount(0, 2)), 0.0)
    progress.update(ImageProgress("a", ProgressAmount(500, 1000), ProgressAmount(1, 3)), 5.0)
    totals = progress.totals(5.0)
    assert (totals.bytes, totals.items) == (ProgressAmount(500, 1500), ProgressAmount(1, 5))
    assert (totals.rate, totals.seconds_left) == (100.0, 10.0)
    assert [each.name for each in progress.running()] == ["b", "a"]


def test_progress_of_images_that_have_ended() -> None:
    """A failed image lacks nothing more, one that waits is not shown, and a repeated one counts once."""
    progress = Progress(images=3)
    progress.update(ImageProgress("c", state="waiting"), 0.0)
    for _ in range(2):
        progress.update(ImageProgress("a", ProgressAmount(300, 1000), state="failed", reason="why"), 1.0)
        progress.update(ImageProgress("b", ProgressAmount(7, 7), state="done"), 1.0)
    totals = progress.totals(1.0)
    assert (totals.images, totals.failed, totals.bytes.done) == (ProgressAmount(2, 3), 1, 307)
    assert ([each.name for each in progress.results()], progress.running()) == (["a", "b"], [])
    progress.update(ImageProgress("a", ProgressAmount(400, 1000)), 2.0)
    assert progress.totals(2.0).failed == 0


def test_progress_without_a_known_number_of_images() -> None:
    """No total is invented."""
    progress = Progress()
    progress.update(ImageProgress("a", ProgressAmount(1, 2)), 0.0)
    totals = progress.totals(1.0)
    assert (totals.images, totals.bytes, totals.seconds_left) == (ProgressAmount(0), ProgressAmount(1), None)
