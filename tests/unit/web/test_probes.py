"""Probes: alive, ready, and counted."""

import json

from tests.fakes.content import FakeImage
from tests.running import Running
from tests.wire import get, head


async def test_alive_and_ready(mirror: Running) -> None:
    """/healthz and /readyz answer GET and HEAD."""
    assert (await get(mirror.address, "/healthz")).body == b"ok\n"
    assert (await head(mirror.address, "/healthz")).status == 200
    ready = await get(mirror.address, "/readyz")
    assert (ready.status, json.loads(ready.body)) == (200, {"ready": True})


async def test_metrics_count_requests_bytes_and_the_cache(mirror: Running, image: FakeImage) -> None:
    """What was asked, sent, received and is kept; never a repository in a label."""
    await get(mirror.address, "/v2/library/x/manifests/t")
    for _ in range(2):
        await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")
        await mirror.landed(image.layers[0])
    reply = await get(mirror.address, "/metrics")
    assert reply.header("content-type").startswith("text/plain")
    lines = reply.body.decode().splitlines()
    assert 'registry_mirror_requests_total{kind="blob",outcome="hit"} 1.0' in lines
    assert 'registry_mirror_requests_total{kind="blob",outcome="miss"} 1.0' in lines
    assert 'registry_mirror_client_bytes_total{kind="blob"} 20.0' in lines
    received = 10 + len(image.manifest_data)
    assert f'registry_mirror_upstream_bytes_total{{upstream="docker.io"}} {received}.0' in lines
    assert "registry_mirror_cache_entries 2.0" in lines
    assert "registry_mirror_tasks 1.0" in lines  # housekeeping
    assert f"registry_mirror_cache_bytes {received}.0" in lines
    assert "registry_mirror_fills_running 0.0" in lines
    assert "library/x" not in reply.body.decode()


async def test_probes_are_not_counted_as_requests(mirror: Running) -> None:
    """A scrape every few seconds must not drown what clients do."""
    await get(mirror.address, "/healthz")
    assert "registry_mirror_requests_total{" not in (await get(mirror.address, "/metrics")).body.decode()
