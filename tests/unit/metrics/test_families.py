"""Families of metrics in OpenMetrics, read by another parser; with several workers too."""

import json
import re
import time
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser

from mirror.metrics.families import Family, merge, render
from mirror.metrics.metrics import Metrics
from tests.running import configured, serving
from tests.unit.metrics.test_multiprocess import Worker
from tests.wire import Wire

ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.1"
)
SLOW = 'registry_mirror_request_seconds_bucket{kind="blob",le="5.0",outcome="miss"}'


def parsed(text: str) -> list[Metric]:
    return list(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def counted() -> Metrics:
    metrics = Metrics()
    metrics.requests.of("blob", "miss").add(10, 0.002, 3.0, "00ab")
    metrics.requests.of("manifest", "hit").add_batch(5, [0.0001, 0.0002])
    metrics.fill_failures.labels("disk").inc()
    metrics.upstream_bytes.labels("docker.io").inc(7)
    metrics.source_latency.labels("docker.io", "docker.io").set(0.1)
    return metrics


def test_openmetrics_page_is_read_by_a_strict_parser() -> None:
    """Names end in their units, counters have the time of their beginning, and each name is there once."""
    before = time.time()
    body, content_type = render(counted().families(), ACCEPT)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    text = body.decode()
    assert text.endswith("# EOF\n")
    families = {each.name: each for each in parsed(text)}
    assert len(families) > 30
    for name, each in families.items():
        assert each.documentation, name
        for unit in ("seconds", "bytes"):
            assert (each.unit == unit) == name.endswith(f"_{unit}"), name
        if name.startswith("registry_mirror_") and each.type in ("counter", "histogram") and each.samples:
            began = [sample for sample in each.samples if sample.name == f"{name}_created"]
            assert began, name
            assert all(before - 60 < sample.value <= time.time() for sample in began), name
        if each.type == "counter":
            assert {sample.name for sample in each.samples} <= {f"{name}_total", f"{name}_created"}


def test_openmetrics_exemplar_is_the_last_request_of_its_bucket() -> None:
    """Only buckets with a request that has an id have one."""
    lines = render(counted().families(), ACCEPT)[0].decode().splitlines()
    found = [each for each in lines if "request_id" in each]
    assert len(found) == 2
    (slow,) = [each for each in found if each.startswith(SLOW)]
    assert re.search(r'5\.0",outcome="miss"\} 1\.0 # \{request_id="00ab"\} 3\.0 [0-9.]+$', slow)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/plain",
        "text/plain;version=1.0.0, application/openmetrics-text;version=1.0.0",
        "application/openmetrics-text;version=0.0.1",
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=1.x",
        f"application/openmetrics-text;version={'9' * 5000}",
        "application/openmetrics-textile",
        "\x7f" * 5000,
    ],
)
def test_metrics_for_others_are_plain(accept: str) -> None:
    """The format of before: no exemplars, no creation times, no units."""
    body, content_type = render(counted().families(), accept)
    assert content_type.startswith("text/plain")
    for each in (b"request_id", b"_created", b"# UNIT", b"# EOF"):
        assert each not in body
    assert f"{SLOW} 1.0\n".encode() in body


def test_families_survive_json_and_merge() -> None:
    """The sum of two processes has the earlier beginning, and the later exemplar."""
    first = {each.name: each for each in counted().families()}
    second = Metrics()
    stats = second.requests.of("blob", "miss")
    stats.created -= 1000
    stats.add(10, 0.002, 4.0, "00cd")
    others = [Family.from_json(json.loads(json.dumps(each.to_json()))) for each in second.families()]
    merged = {each.name: each for each in merge(first.values(), others)}
    whole = merged["registry_mirror_request_seconds"]
    bucket = (
        "registry_mirror_request_seconds_bucket",
        (("kind", "blob"), ("outcome", "miss"), ("le", "5.0")),
    )
    assert whole.samples[bucket] == 2
    assert whole.exemplars[bucket][:2] == ("00cd", 4.0)
    began = ("registry_mirror_request_seconds_created", (("kind", "blob"), ("outcome", "miss")))
    assert whole.samples[began] == stats.created
    backwards = {each.name: each for each in merge(others, first.values())}
    assert backwards["registry_mirror_request_seconds"].exemplars == whole.exemplars


async def test_exemplars_of_all_workers_are_on_one_page(tmp_path: Path) -> None:
    """Any worker answers with those of the others, of dead ones too."""
    async with Worker(tmp_path, 0) as one, Worker(tmp_path, 1) as two:
        two.metrics.requests.of("blob", "miss").add(10, 0.002, 3.0, "00ab")
        for each in (one, two):
            assert b'request_id="00ab"' in render(await each.multiprocess.sum(), ACCEPT)[0]
        two.die()
        body = render(await one.multiprocess.sum(), ACCEPT)[0]
        assert b'request_id="00ab"' in body
        assert parsed(body.decode())


async def test_metrics_endpoint_goes_by_accept(tmp_path: Path) -> None:
    """The id is that of the access line: a request that failed is on the page."""
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    async with serving(config) as mirror, await Wire.open(mirror.address) as wire:
        wire.send("GET", "/v2/team/app/manifests/1")
        assert (await wire.reply()).status == 404
        wire.send("GET", "/metrics", [f"Accept: {ACCEPT}"])
        reply = await wire.reply()
        assert reply.headers["content-type"].startswith("application/openmetrics-text")
        assert re.search(rb'outcome="error"\} 1\.0 # \{request_id="[0-9a-f]{16}"\}', reply.body)
        assert parsed(reply.body.decode())
        wire.send("GET", "/metrics")
        assert b"request_id" not in (await wire.reply()).body
