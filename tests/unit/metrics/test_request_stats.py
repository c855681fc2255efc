"""Request statistics: exact and cheap."""

from mirror.metrics.request_stats import BUCKETS, Latency, RequestStats, RequestStatsTable


def test_latency_buckets_are_cumulative() -> None:
    """Each duration is counted at and above its bound, which is part of its bucket."""
    latency = Latency()
    for seconds in (0.0005, 0.001, 0.3, 5000.0):
        latency.observe(seconds)
    buckets = dict(latency.buckets())
    assert (buckets["0.001"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (2, 2, 3, 4)
    assert len(buckets) == len(BUCKETS) + 1
    assert latency.seconds == 0.0005 + 0.001 + 0.3 + 5000.0


def test_request_stats_by_kind_and_outcome() -> None:
    """Statistics are created at first use; later calls return the same object."""
    table = RequestStatsTable()
    table.of("blob", "miss").add(7, 0.1, 0.2)
    table.of("blob", "hit").add(1, 0.1, 0.2)
    table.of("blob", "hit").add(2, 0.1, 0.2)
    assert [(labels, stats.requests, stats.bytes) for labels, stats in table.rows()] == [
        (("blob", "hit"), 2, 3),
        (("blob", "miss"), 1, 7),
    ]


def test_request_stats_batch_equals_single_adds() -> None:
    """A batch counts the same as single requests whose head and end were sent together."""
    one, other = RequestStats(), RequestStats()
    durations = (0.0001, 0.001, 0.3)
    for seconds in durations:
        one.add(5, seconds, seconds)
    other.add_batch(5, durations)
    other.created = one.created
    assert one == other
