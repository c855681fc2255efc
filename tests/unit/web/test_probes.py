"""Probes: health, readiness and metrics."""

import json
from pathlib import Path
from typing import Any

import pytest

from mirror.config.types import Amount
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import get, head


async def test_healthz_and_readyz_answer(mirror: Running) -> None:
    """/healthz and /readyz answer GET and HEAD."""
    assert (await get(mirror.address, "/healthz")).body == b"ok\n"
    assert (await head(mirror.address, "/healthz")).status == 200
    ready = await get(mirror.address, "/readyz")
    assert (ready.status, json.loads(ready.body)["ready"]) == (200, True)
    assert (await head(mirror.address, "/readyz")).status == 200


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/v2/", "/v2/library/x/manifests/no", "/x"]
)
async def test_server_header_is_the_same_everywhere(mirror: Running, path: str) -> None:
    """Probes, content and errors name the program, and not its libraries with their versions."""
    assert (await get(mirror.address, path)).header("server") == "registry-mirror"


def source(readyz: bytes) -> dict[str, Any]:
    """Return the entry of docker.io's own endpoint."""
    found: dict[str, Any] = json.loads(readyz)["upstreams"]["docker.io"]["sources"][0]
    return found


async def test_readyz_has_the_state_of_upstreams(
    mirror: Running, image: FakeImage, hub: FakeRegistry
) -> None:
    """Each source has its breaker, each account its budget; a bad state does not change the status."""
    unknown = {"limit": None, "remaining": None, "window": None, "source": None}
    assert json.loads((await get(mirror.address, "/readyz")).body)["upstreams"]["quay.io"] == {
        "offline": False,
        "sources": [
            {
                "source": hub.url.removeprefix("http://"),
                "breaker": "closed",
                "accounts": [{"account": "anonymous", "refused": False, "budget": "plenty", **unknown}],
            }
        ],
    }
    hub.limit = RateLimit(20)
    hub.limit.used[""] = 14
    await get(mirror.address, "/v2/library/x/manifests/t")
    assert source((await get(mirror.address, "/readyz")).body)["accounts"] == [
        {
            "account": "anonymous",
            "budget": "low",
            "refused": False,
            "limit": 20,
            "remaining": 5,
            "window": 21600,
            "source": "203.0.113.7",
        }
    ]
    hub.fault(Fault(status=503), times=2 * 3)  # of HEAD and GET: the budget is low
    for number in range(3):
        await get(mirror.address, f"/v2/library/x/manifests/other{number}")
    ready = await get(mirror.address, "/readyz")
    assert (ready.status, source(ready.body)["breaker"]) == (200, "open")
    mirror.service._upstreams["docker.io"].own.health._open_until = 0.0  # some time later
    assert source((await get(mirror.address, "/readyz")).body)["breaker"] == "half_open"


async def test_readyz_is_ready_when_offline(hub: FakeRegistry, tmp_path: Path) -> None:
    """An offline mirror is ready: it serves its cache."""
    config = configured(tmp_path, {"docker.io": hub.url}, server={"offline": True})
    async with serving(config) as mirror:
        ready = await get(mirror.address, "/readyz")
        assert (ready.status, json.loads(ready.body)["upstreams"]["docker.io"]["offline"]) == (200, True)


async def test_metrics_of_the_rate_limit(mirror: Running, image: FakeImage, hub: FakeRegistry) -> None:
    """Limit and remaining requests, by upstream and account; an outdated number is left out."""
    hub.limit = RateLimit(20)
    await get(mirror.address, "/v2/library/x/manifests/t")
    labels = '{account="anonymous",upstream="docker.io"}'
    body = (await get(mirror.address, "/metrics")).body.decode()
    assert f"registry_mirror_ratelimit_limit{labels} 20.0" in body
    assert f"registry_mirror_ratelimit_remaining{labels} 19.0" in body
    assert 'registry_mirror_ratelimit_limit{account="anonymous",upstream="quay.io"}' not in body
    (account,) = mirror.service._upstreams["docker.io"].own.registry.accounts.all
    account.rate_limit._reading_until = 0.0  # some time later
    assert "registry_mirror_ratelimit_limit{" not in (await get(mirror.address, "/metrics")).body.decode()


async def test_metrics_count_requests_bytes_and_the_cache(mirror: Running, image: FakeImage) -> None:
    """Requests, bytes sent and received, and the cache's size; never a repository in a label."""
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
    assert "registry_mirror_tasks 2.0" in lines  # housekeeping, and the scrub that waits
    assert f"registry_mirror_cache_bytes {received}.0" in lines
    assert "registry_mirror_fills_running 0.0" in lines
    assert "library/x" not in reply.body.decode()


async def test_metrics_of_the_room(hub: FakeRegistry, image: FakeImage, tmp_path: Path) -> None:
    """The bytes that the cache may hold, that it leaves free, and that pins take."""
    config = configured(tmp_path / "cache", {"docker.io": hub.url})
    settings = {"max_size": Amount(1_000_000), "min_free": Amount(4096), "pins": ("library/x:t",)}
    cache = config.cache.model_copy(update=settings)
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        await get(mirror.address, "/v2/library/x/manifests/t")
        lines = (await get(mirror.address, "/metrics")).body.decode().splitlines()
    assert "registry_mirror_cache_allowed_bytes 1e+06" in lines
    assert "registry_mirror_cache_min_free_bytes 4096.0" in lines
    pinned = len(image.manifest_data) + len(image.config_data) + sum(map(len, image.layers_data))
    assert f"registry_mirror_cache_pinned_bytes {pinned}.0" in lines


async def test_probes_are_not_counted_as_requests(mirror: Running) -> None:
    """A scrape every few seconds must not hide the clients' requests."""
    await get(mirror.address, "/healthz")
    assert "registry_mirror_requests_total{" not in (await get(mirror.address, "/metrics")).body.decode()
