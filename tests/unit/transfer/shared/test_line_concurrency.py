"""Connections of all downloads on one line."""

from collections.abc import Callable

from mirror.transfer.shared.line_concurrency import OVER_SECONDS, LineConcurrency

LOOK = 0.05


def climb(line: LineConcurrency, count: int, rate: Callable[[int], float], seconds: float) -> list[int]:
    """Return the connections of each download after `seconds`; `rate`: of all, by their number."""
    downloads = [line.of_download(8) for _ in range(count)]
    received, now = [0.0] * count, 0.0
    while now < seconds:
        now += LOOK
        levels = [each.level for each in downloads]
        for number, (download, level) in enumerate(zip(downloads, levels, strict=True)):
            received[number] += LOOK * rate(sum(levels)) * level / sum(levels)
            download.observe(now, int(received[number]), level)
    return [each.level for each in downloads]


def test_line_that_is_full_gets_one_connection_for_each_download() -> None:
    """A download alone would gain by more of them, and all together do not."""
    assert climb(LineConcurrency(32), 3, lambda count: 25e6, 5) == [1, 1, 1]


def test_line_gets_more_connections_while_all_receive_more() -> None:
    """Connections limited by themselves: up to the most of each download, and of all."""
    assert climb(LineConcurrency(32), 3, lambda count: count * 1e6, 5) == [8, 8, 8]
    assert climb(LineConcurrency(12), 3, lambda count: count * 1e6, 5) == [4, 4, 4]


def test_line_that_six_connections_fill() -> None:
    levels = climb(LineConcurrency(32), 3, lambda count: min(count, 6) * 1e6, 8)
    assert 2 <= levels[0] <= 3


def test_line_is_known_to_the_next_download() -> None:
    """Connections that have paid are shared out among the next downloads; one that is over has no part."""
    line = LineConcurrency(32)
    assert climb(line, 1, lambda count: min(count, 8) * 1e6, 5) == [8]
    first, second = line.of_download(8), line.of_download(8)
    begin = 5 + 2 * OVER_SECONDS
    first.observe(begin, 0, 1)
    assert (first.level, first.proven_level) == (8, 8)
    second.observe(begin, 0, 1)
    assert (first.level, second.level, second.likely(begin)) == (4, 4, 8)
    second.observe(begin + 2 * OVER_SECONDS, 0, 1)
    assert second.level == 8


def test_line_of_downloads_that_wait_is_not_measured() -> None:
    """Connections that have not received a byte yet show nothing."""
    line = LineConcurrency(32)
    download = line.of_download(8)
    for step in range(100):
        download.observe(step * LOOK, 0, 0)
    assert download.level == 1


def test_line_of_a_busy_process_gets_no_more_connections() -> None:
    """Work of this process counts once, however many downloads have seen it."""
    line, now = LineConcurrency(32), 0.0
    downloads = [line.of_download(8) for _ in range(3)]
    for step in range(40):
        now = step * LOOK
        for each in downloads:
            each.observe(now, int(now * 100e6), 1, worked=0.95 * now)
    assert [each.level for each in downloads] == [1, 1, 1]
