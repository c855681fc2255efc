"""The debug log of a pull: requests to upstreams, tokens, fills and decisions, and no secret."""

from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes.access import TokenAuth
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, mirror_of, serving
from tests.wire import get, head

pytestmark = pytest.mark.usefixtures("debug_log")

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache", tags={"fresh": 3600}) as mirror:
        yield mirror


def debug(lines: Lines, event: str) -> Lines:
    return [line for line in lines if line["event"] == event and line["log_level"] == "debug"]


async def test_debug_log_of_a_cold_pull(fake: FakeRegistry, mirror: Running) -> None:
    """Each request to the upstream, the token's realm and scope, and each fill; no token and no password."""
    fake.auth = TokenAuth()
    image = fake.add_image("library/x", "t", [bytes(LARGE)])
    with capture_logs() as lines:
        await get(mirror.address, "/v2/library/x/manifests/t")
        await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")
        await get(mirror.address, f"/v2/library/x/blobs/{image.config}")
        await mirror.landed(image.layers[0])
        await mirror.landed(image.config)
    requests = debug(lines, "upstream asked")
    asked = [(line["method"], line["url"].removeprefix(fake.url), line["status"]) for line in requests]
    assert ("GET", "/v2/library/x/manifests/t", 401) in asked
    assert ("GET", "/v2/library/x/manifests/t", 200) in asked
    assert all(line["upstream"] == "docker.io" and line["total_ms"] >= 0 for line in requests)
    (fetched,) = debug(lines, "token fetched")
    assert fetched["scope"] == "repository:library/x:pull"
    assert fetched["realm"].startswith(fake.url)
    assert [line["digest"] for line in debug(lines, "fill started")] == [str(image.layers[0])]
    stored = {line["digest"] for line in debug(lines, "fill stored")}
    assert stored == {str(image.layers[0]), str(image.config)}
    assert not [token for token in fake.auth.issued if token in str(lines)]


async def test_debug_log_of_cache_decisions(fake: FakeRegistry, tmp_path: Path) -> None:
    """A tag that is fresh, revalidated, or served stale says so; a failed request has its reason."""
    now = [1000.0]
    fake.add_image("library/x", "t", [b"a"])
    with capture_logs() as lines:
        config = configured(tmp_path, {"docker.io": fake.url}, tags={"fresh": 60})
        async with serving(config, clock=lambda: now[0]) as mirror:
            await get(mirror.address, "/v2/library/x/manifests/t")
            await head(mirror.address, "/v2/library/x/manifests/t")
            now[0] += 61
            await get(mirror.address, "/v2/library/x/manifests/t")
            now[0] += 61
            fake.fault(Fault(status=503), times=9)
            await get(mirror.address, "/v2/library/x/manifests/t")
    assert debug(lines, "tag fresh")[0]["fresh_seconds"] == 60
    assert debug(lines, "tag revalidated")[0]["moved"] is False
    assert [line["status"] for line in debug(lines, "upstream asked")][-1] == 503
