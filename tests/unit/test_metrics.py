"""Metrics: a registry of their own, names as Prometheus wants them."""

import re

from mirror.metrics import Metrics


def test_names_follow_the_conventions() -> None:
    """One prefix, base units, counters that end in _total, help for each."""
    metrics = Metrics()
    metrics.requests.labels("blob", "hit").inc()
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
    assert "process_open_fds" in text


def test_two_mirrors_do_not_meet() -> None:
    """Nothing is global: a second instance counts for itself."""
    first, second = Metrics(), Metrics()
    first.fills_running.inc()
    assert b"registry_mirror_fills_running 0.0" in second.render()[0]
