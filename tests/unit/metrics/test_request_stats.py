"""Counts of requests: exact, and cheap."""

from mirror.metrics.request_stats import BUCKETS, Latency, RequestStats, RequestStatsTable


def test_buckets_add_up() -> None:
    """Each duration is counted at and above its bound, which is part of its bucket."""
    latency = Latency()
    for seconds in (0.0005, 0.001, 0.3, 5000.0):
        latency.observe(seconds)
    buckets = dict(latency.buckets())
    assert (buckets["0.001"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (2, 2, 3, 4)
    assert len(buckets) == len(BUCKETS) + 1
    assert latency.seconds == 0.0005 + 0.001 + 0.3 + 5000.0


def test_a_tally_for_each_kind_and_outcome() -> None:
    """One is made at first use, and is the same ever after."""
    tallies = RequestStatsTable()
    tallies.of("blob", "miss").add(7, 0.1, 0.2)
    tallies.of("blob", "hit").add(1, 0.1, 0.2)
    tallies.of("blob", "hit").add(2, 0.1, 0.2)
    assert [(labels, tally.requests, tally.bytes) for labels, tally in tallies.rows()] == [
        (("blob", "hit"), 2, 3),
        (("blob", "miss"), 1, 7),
    ]


def test_at_once_is_the_same() -> None:
    """As a head and an end at one moment, one by one."""
    one, other = RequestStats(), RequestStats()
    durations = (0.0001, 0.001, 0.3)
    for seconds in durations:
        one.add(5, seconds, seconds)
    other.add_batch(5, durations)
    assert one == other
