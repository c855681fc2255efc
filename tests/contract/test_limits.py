"""Limits, over a whole mirror: who is refused, who waits, and who is served as if there were none."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mirror.access.tokens import new_secret
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, serving
from tests.wire import Reply, Wire

ONE, OTHER = "127.0.0.1", "127.0.0.2"
MIB = 1024 * 1024


def limited(folder: Path, hub: FakeRegistry, *limits: dict[str, Any], **sections: Any) -> Any:
    """Return a configuration with limits."""
    named = [{"name": f"limit{number}", **each} for number, each in enumerate(limits, 1)]
    return configured(folder, {"hub.test": hub.url}, limits=named, **sections)


async def ask(mirror: Running, path: str, *headers: str, client: str = ONE, method: str = "GET") -> Reply:
    async with await Wire.open(mirror.address, client=client) as wire:
        wire.send(method, path, headers)
        return await wire.reply(method)


def error_of(reply: Reply) -> tuple[str, str]:
    error = json.loads(reply.body)["errors"][0]
    return error["code"], error["message"]


async def test_requests_beyond_the_burst_that_would_wait_too_long_are_refused(tmp_path: Path) -> None:
    """429 with the time to wait; another client has its own bucket, and the refusal is counted."""
    async with (
        FakeRegistry() as hub,
        serving(limited(tmp_path, hub, {"requests": 0.01, "burst": 3})) as mirror,
    ):
        assert [(await ask(mirror, "/v2/")).status for _ in range(3)] == [200] * 3
        refused = await ask(mirror, "/v2/")
        assert refused.status == 429
        assert 90 <= int(refused.header("Retry-After")) <= 100
        assert error_of(refused)[0] == "TOOMANYREQUESTS"
        assert "limit1" in error_of(refused)[1]
        assert (await ask(mirror, "/v2/", client=OTHER)).status == 200
        counted = 'registry_mirror_limited_total{bound="requests",limit="limit1"}'
        assert await mirror.metric(counted) == 1


async def test_requests_answered_from_memory_are_counted_too(tmp_path: Path) -> None:
    """A head that needs no parsing costs as much of the bucket as another."""
    async with (
        FakeRegistry() as hub,
        serving(limited(tmp_path, hub, {"requests": 0.01, "burst": 10})) as mirror,
        await Wire.open(mirror.address) as wire,
    ):
        statuses = []
        for _ in range(12):
            wire.send("GET", "/v2/")
            statuses.append((await wire.reply()).status)
        assert statuses == [200] * 10 + [429] * 2
        mirror.service.metrics.requests.flush_pending()
        assert await mirror.metric('registry_mirror_requests_total{kind="other",outcome="limited"}') == 2


async def test_short_ranges_answered_from_memory_are_counted_too(tmp_path: Path) -> None:
    """Ranges of a blob whose file is open, by one head but for the range."""
    limit = {"requests": 0.01, "burst": 40}
    async with FakeRegistry() as hub, serving(limited(tmp_path, hub, limit)) as mirror:
        path = f"/v2/org/app/blobs/{hub.add_blob('org/app', bytes(LARGE))}"
        assert (await ask(mirror, path)).status == 200
        async with await Wire.open(mirror.address) as wire:
            statuses = []
            for number in range(41):
                wire.send("GET", path, [f"Range: bytes={number}-{number + 99}"])
                statuses.append((await wire.reply()).status)
        assert statuses == [206] * 39 + [429] * 2


@pytest.mark.parametrize("way", ["path", "header", "login"])
async def test_requests_with_wrong_credentials_are_counted_too(tmp_path: Path, way: str) -> None:
    """A client that is refused for its token would else be the only one without a limit."""
    limit, secret = {"requests": 0.01, "burst": 3}, new_secret()
    path = f"/t/{secret}/v2/" if way == "path" else "/v2/"
    headers = {"path": [], "header": [f"Authorization: Bearer {secret}"], "login": ["Authorization: Basic !"]}
    access = {"login_hosts": ["*"]}
    async with FakeRegistry() as hub, serving(limited(tmp_path, hub, limit, access=access)) as mirror:
        statuses = [(await ask(mirror, path, *headers[way])).status for _ in range(5)]
    assert statuses == [404 if way == "path" else 401] * 3 + [429] * 2


async def test_requests_of_everybody_share_a_bucket_in_all(tmp_path: Path) -> None:
    limit = {"per": "all", "requests": 0.01, "burst": 2}
    async with FakeRegistry() as hub, serving(limited(tmp_path, hub, limit)) as mirror:
        assert (await ask(mirror, "/v2/")).status == 200
        assert (await ask(mirror, "/v2/", client=OTHER)).status == 200
        assert (await ask(mirror, "/v2/", client=OTHER)).status == 429


async def test_limits_of_a_network_are_for_that_network_only(tmp_path: Path) -> None:
    limit = {"per": "network", "networks": ["127.0.0.2/31"], "requests": 0.01, "burst": 2}
    async with FakeRegistry() as hub, serving(limited(tmp_path, hub, limit)) as mirror:
        for client in ("127.0.0.2", "127.0.0.3"):
            assert (await ask(mirror, "/v2/", client=client)).status == 200
        assert (await ask(mirror, "/v2/", client="127.0.0.3")).status == 429
        assert [(await ask(mirror, "/v2/")).status for _ in range(5)] == [200] * 5


async def test_connections_in_use_are_bounded_and_idle_ones_are_not(tmp_path: Path) -> None:
    """A second response waits for the first one; idle connections and other clients do not count."""
    async with (
        FakeRegistry() as hub,
        serving(limited(tmp_path, hub, {"connections": 1})) as mirror,
        await Wire.open(mirror.address) as busy,
        await Wire.open(mirror.address) as idle,
        await Wire.open(mirror.address) as late,
    ):
        image = hub.add_image("org/app", "1", [bytes(LARGE)])
        assert (await ask(mirror, "/v2/org/app/manifests/1")).status == 200
        idle.send("GET", "/v2/")
        assert (await idle.reply()).status == 200
        gate = hub.hold(image.layers[0], after=4096)
        busy.send("GET", f"/v2/org/app/blobs/{image.layers[0]}")
        await gate.reached.wait()
        late.send("GET", "/v2/")
        assert (await ask(mirror, "/v2/", client=OTHER)).status == 200
        assert late.reader._buffer == b""  # type: ignore[attr-defined]  # nothing was answered
        gate.release()
        assert (await busy.reply()).body == bytes(LARGE)
        assert (await late.reply()).status == 200
        assert (await ask(mirror, "/v2/")).status == 200


async def test_bandwidth_is_shared_by_client_and_not_by_connection(tmp_path: Path) -> None:
    """A client with one pull ends before one with eight has ended any, though all began together."""
    blob = bytes(range(256)) * (LARGE // 256)
    async with (
        FakeRegistry() as hub,
        serving(limited(tmp_path, hub, {"per": "all", "bandwidth": "20MB"})) as mirror,
    ):
        path = f"/v2/org/app/blobs/{hub.add_blob('org/app', blob)}"
        assert (await ask(mirror, path)).body == blob
        ended: list[str] = []

        async def pull(client: str) -> None:
            assert (await ask(mirror, path, client=client)).body == blob
            ended.append(client)

        many = [asyncio.create_task(pull(ONE)) for _ in range(8)]
        await pull(OTHER)
        assert ended == [OTHER]
        for task in many:
            task.cancel()
        await asyncio.gather(*many, return_exceptions=True)


async def test_bandwidth_limits_every_kind_of_body(tmp_path: Path) -> None:
    """Small bodies, ranges and growing files go over the line as well, and are complete."""
    async with (
        FakeRegistry() as hub,
        serving(limited(tmp_path, hub, {"bandwidth": "50MB"})) as mirror,
    ):
        image = hub.add_image("org/app", "1", [bytes(LARGE), b"small"])
        large, small = (f"/v2/org/app/blobs/{each}" for each in image.layers)
        assert (await ask(mirror, "/v2/org/app/manifests/1")).body == image.manifest_data
        assert (await ask(mirror, large)).body == bytes(LARGE)
        assert (await ask(mirror, small)).body == b"small"
        assert (await ask(mirror, large, "Range: bytes=1-4")).body == bytes(4)
        assert (await ask(mirror, large, method="HEAD")).status == 200


class Day:
    """Seconds since the epoch, which a test moves."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_quota_of_upstream_bytes_ends_misses_and_no_hits(tmp_path: Path) -> None:
    """Cached blobs are served still; images with missing ones are refused at the manifest, until midnight."""
    day = Day()
    async with FakeRegistry() as hub:
        config = limited(tmp_path, hub, {"upstream_per_day": "5MiB"})
        first, second = (hub.add_image("org/app", str(n), [bytes([n]) * LARGE]) for n in (1, 2))
        third = hub.add_image("org/app", "3", [b"3" * LARGE])
        async with serving(config, day) as mirror:
            for image in (first, second):
                assert (await ask(mirror, f"/v2/org/app/manifests/{image.tag}")).status == 200
                assert (await ask(mirror, f"/v2/org/app/blobs/{image.layers[0]}")).status == 200
                await mirror.landed(image.layers[0])
        # The use of the day outlives a restart.
        async with serving(config, day) as mirror:
            for path in (f"blobs/{third.layers[0]}", "manifests/3"):
                refused = await ask(mirror, f"/v2/org/app/{path}")
                assert refused.status == 429, path
                assert int(refused.header("Retry-After")) == 86400 - day.now % 86400
            assert (await ask(mirror, f"/v2/org/app/blobs/{first.layers[0]}")).status == 200
            assert (await ask(mirror, f"/v2/org/app/blobs/{third.layers[0]}", client=OTHER)).status == 200
            day.now += 86400
            fourth = hub.add_image("org/app", "4", [b"4" * 1000])
            assert (await ask(mirror, "/v2/org/app/manifests/4")).status == 200
            assert (await ask(mirror, f"/v2/org/app/blobs/{fourth.layers[0]}")).status == 200


async def test_quota_pays_for_what_is_prefetched(tmp_path: Path) -> None:
    """Layers count for the client that has the manifest, and not for one that joins their download."""
    async with FakeRegistry() as hub:
        limits = {"upstream_per_day": "4MiB"}
        config = limited(tmp_path, hub, limits, fill={"prefetch": "manifest"})
        async with serving(config) as mirror:
            image = hub.add_image("org/app", "1", [bytes(LARGE)])
            others = [hub.add_blob("org/app", bytes([number]) * 1000) for number in (1, 2)]
            gate = hub.hold(image.layers[0], after=4096)
            assert (await ask(mirror, "/v2/org/app/manifests/1")).status == 200
            await gate.reached.wait()
            joined = asyncio.create_task(ask(mirror, f"/v2/org/app/blobs/{image.layers[0]}", client=OTHER))
            gate.release()
            assert (await joined).status == 200
            await mirror.landed(image.layers[0])
            assert (await ask(mirror, f"/v2/org/app/blobs/{others[0]}")).status == 429
            assert (await ask(mirror, f"/v2/org/app/blobs/{others[1]}", client=OTHER)).status == 200


async def test_blob_beyond_the_largest_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    """403 DENIED with words, at the manifest and at the blob; smaller ones and other clients are served."""
    limit = {"networks": [ONE], "max_blob": "4MiB"}
    async with FakeRegistry() as hub, serving(limited(tmp_path, hub, limit)) as mirror:
        image = hub.add_image("org/app", "1", [bytes(LARGE), b"small"])
        unnamed = hub.add_blob("org/app", b"1" * LARGE)
        large, small = (f"/v2/hub.test/org/app/blobs/{each}" for each in image.layers)
        for path in ("/v2/hub.test/org/app/manifests/1", large, f"/v2/hub.test/org/app/blobs/{unnamed}"):
            refused = await ask(mirror, path)
            assert refused.status == 403, path
            code, message = error_of(refused)
            assert code == "DENIED"
            assert "4 MiB" in message
        assert hub.requests("GET", "/blobs/") == 0
        assert (await ask(mirror, small)).body == b"small"
        # Nothing that is remembered for one client is given to another, or kept from another.
        for client, status in ((OTHER, 200), (ONE, 403)) * 4:
            assert (await ask(mirror, "/v2/hub.test/org/app/manifests/1", client=client)).status == status
        assert (await ask(mirror, large, client=OTHER)).body == bytes(LARGE)
        assert (await ask(mirror, large)).status == 403


async def test_fills_beyond_the_bound_wait_and_hits_do_not(tmp_path: Path) -> None:
    async with FakeRegistry() as hub, serving(limited(tmp_path, hub, {"fills": 1})) as mirror:
        first, second = (hub.add_blob("org/app", bytes([n]) * LARGE) for n in (1, 2))
        stored = hub.add_blob("org/app", b"stored")
        assert (await ask(mirror, f"/v2/org/app/blobs/{stored}")).status == 200
        gate = hub.hold(first, after=4096)
        waiting = [asyncio.create_task(ask(mirror, f"/v2/org/app/blobs/{first}"))]
        await gate.reached.wait()
        waiting.append(asyncio.create_task(ask(mirror, f"/v2/org/app/blobs/{second}")))
        assert (await ask(mirror, f"/v2/org/app/blobs/{stored}")).status == 200
        third = hub.add_blob("org/app", b"3" * LARGE)
        assert (await ask(mirror, f"/v2/org/app/blobs/{third}", client=OTHER)).status == 200
        assert hub.requests("GET", second) == 0
        gate.release()
        assert [(await each).status for each in waiting] == [200, 200]


@pytest.mark.parametrize("bound", ["connections", "requests", "bandwidth", "upstream_per_day", "fills"])
async def test_generous_limit_changes_nothing(tmp_path: Path, bound: str) -> None:
    """A pull under a limit that it does not reach is as one without."""
    async with FakeRegistry() as hub, serving(limited(tmp_path, hub, {bound: 10**9})) as mirror:
        image = hub.add_image("org/app", "1", [bytes(LARGE), b"small"])
        assert (await ask(mirror, "/v2/org/app/manifests/1")).body == image.manifest_data
        for digest, data in zip(image.layers, image.layers_data, strict=True):
            for _ in range(3):
                assert (await ask(mirror, f"/v2/org/app/blobs/{digest}")).body == data
