"""The rate follows the last seconds."""

from mirror.util.progress.rate import RateWindow


def test_progress_rate_is_that_of_the_last_seconds() -> None:
    """A fast beginning is forgotten; a standstill shows at once, without a further sample."""
    window = RateWindow()
    assert window.rate(0.0) == 0.0
    for second in range(11):
        window.add(float(second), second * 1000)
    assert window.rate(10.0) == 1000.0
    for second in range(11, 31):
        window.add(float(second), 10_000 + (second - 10) * 10)
    assert window.rate(30.0) == 10.0
    assert window.rate(50.0) < 5.0


def test_progress_rate_keeps_few_samples() -> None:
    """Updates may come at each chunk."""
    window = RateWindow()
    for number in range(100_000):
        window.add(number / 10_000, number)
    assert len(window._samples) < 100
    assert abs(window.rate(10.0) - 10_000) < 100
