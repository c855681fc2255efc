"""Metrics: a registry of their own, names as Prometheus wants them."""

import re

from mirror.metrics.metrics import Metrics


def test_names_follow_the_conventions() -> None:
    """One prefix, base units, counters that end in _total, help for each."""
    metrics = Metrics()
    metrics.requests.of("blob", "hit").add(10, 0.002, 3.0)
    body, content_type = metrics.render()
    text = body.decode()
    assert content_type.startswith("text/plain")
    ours = re.findall(r"^# TYPE (registry_mirror_\S+) (\S+)", text, re.MULTILINE)
    assert len(ours) > 10
    for name, kind in ours:
        assert f"# HELP {name} " in text
        if kind == "counter":
            assert name.endswith("_total")
        if kind == "histogram":
            assert name.endswith("_seconds")
    assert 'registry_mirror_requests_total{kind="blob",outcome="hit"} 1.0' in text
    assert 'registry_mirror_client_bytes_total{kind="blob"} 10.0' in text
    assert 'registry_mirror_request_seconds_bucket{kind="blob",le="2.5",outcome="hit"} 0.0' in text
    assert 'registry_mirror_request_seconds_bucket{kind="blob",le="5.0",outcome="hit"} 1.0' in text
    assert 'registry_mirror_request_seconds_sum{kind="blob",outcome="hit"} 3.0' in text
    assert "process_open_fds" in text


def test_two_mirrors_do_not_meet() -> None:
    """Nothing is global: a second instance counts for itself."""
    first, second = Metrics(), Metrics()
    first.fills_running.inc()
    assert b"registry_mirror_fills_running 0.0" in second.render()[0]
