"""Metrics: one registry for each mirror, and names that follow Prometheus' conventions."""

import re

from mirror.metrics.families import render
from mirror.metrics.metrics import Metrics


def test_metric_names_follow_the_conventions() -> None:
    """Names have one prefix and base units, counters end in _total, and each family has a help text."""
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


def test_scrape_has_no_creation_times() -> None:
    """The `_created` samples of prometheus_client would double the page; no other sample is missing."""
    metrics = Metrics()
    metrics.fill_failures.labels("disk").inc()
    lines = render(metrics.families())[0].decode().splitlines()
    assert not [each for each in lines if "_created" in each]
    assert 'registry_mirror_fill_failures_total{reason="disk"} 1.0' in lines
    names = {each.split()[2] for each in lines if each.startswith("# TYPE ")}
    whole = {
        each.split()[2] for each in metrics.render()[0].decode().splitlines() if each.startswith("# TYPE ")
    }
    assert names == {each for each in whole if not each.endswith("_created")}


def test_metrics_of_two_mirrors_are_separate() -> None:
    """No metric is global: a second instance counts on its own."""
    first, second = Metrics(), Metrics()
    first.fills_running.inc()
    assert b"registry_mirror_fills_running 0.0" in second.render()[0]
