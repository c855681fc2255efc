"""Prefetch: blobs of a manifest arrive before a client asks, and never delay a client."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.cache import prefetch
from mirror.cache.results import ManifestAnswer, Outcome
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.store.partial.growing import GrowingFile
from mirror.transfer import download
from mirror.transfer.plan import DEFAULT_LIMITS, PlanLimits
from mirror.util.time_limit import TimeLimit
from mirror.util.ttl_cache import TTLCache
from tests.fakes.access import TokenAuth
from tests.fakes.content import FakeImage, descriptor, image_index, image_manifest, some_layers
from tests.fakes.faults import Fault, Gate
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, LARGE_DATA, Running, configured, mirror_of, serving
from tests.wire import get, head

X = Repository("docker.io", "library/x")
BIG = LARGE_DATA


@pytest.fixture
async def one(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """A mirror that prefetches one blob at a time."""
    async with prefetching(hub, tmp_path, 1) as mirror:
        yield mirror


@asynccontextmanager
async def prefetching(
    hub: FakeRegistry, folder: Path, most: int, limits: PlanLimits = DEFAULT_LIMITS, **fill: Any
) -> AsyncIterator[Running]:
    """A mirror with `most` prefetch workers."""
    async with mirror_of(hub, folder / "cache", limits, fill={"prefetch": most, **fill}) as mirror:
        yield mirror


def blob(digest: Digest, repository: str = "library/x") -> str:
    return f"/v2/{repository}/blobs/{digest}"


async def pull(mirror: Running, reference: str | Digest = "t", repository: str = "library/x") -> bytes:
    """Fetch the manifest, and nothing else."""
    return (await get(mirror.address, f"/v2/{repository}/manifests/{reference}")).body


def workers(mirror: Running) -> list[asyncio.Task[Any]]:
    return [task for task in mirror.service._tasks._running if task.get_name() == "prefetch"]


async def idle(mirror: Running) -> None:
    """Wait until no prefetch is running."""
    while running := workers(mirror):
        await asyncio.wait(running)


async def counted(mirror: Running, outcome: str) -> float:
    return await mirror.metric(f'registry_mirror_prefetched_blobs_total{{outcome="{outcome}"}}')


def fetched(hub: FakeRegistry) -> list[str]:
    """Return the digests of the requested blobs, in order."""
    return [seen.path.rpartition("/")[2] for seen in hub.log if "/blobs/" in seen.path]


def names(*digests: Digest) -> list[str]:
    return [str(digest) for digest in digests]


def held(hub: FakeRegistry, digests: Sequence[Digest]) -> list[Gate]:
    """Hold the transfers of these blobs after one byte."""
    return [hub.hold(digest, after=1) for digest in digests]


@pytest.mark.parametrize("by_digest", [False, True])
async def test_prefetch_of_config_and_layers(hub: FakeRegistry, one: Running, by_digest: bool) -> None:
    """The order is that of the manifest, by tag and by digest; the blobs are hits when a client asks."""
    image = hub.add_image("library/x", "t", some_layers(4))
    await pull(one, image.manifest if by_digest else "t")
    await idle(one)
    assert fetched(hub) == names(*image.blobs)
    asked = len(hub.log)
    for digest, data in zip(image.layers, image.layers_data, strict=True):
        assert (await get(one.address, blob(digest))).body == data
    assert len(hub.log) == asked
    assert await counted(one, "stored") == 5
    assert await one.metric('registry_mirror_requests_total{kind="blob",outcome="hit"}') == 4


async def test_prefetch_does_not_start_on_head(hub: FakeRegistry, one: Running) -> None:
    """A client that only checks a tag may not pull."""
    hub.add_image("library/x", "t", some_layers(2))
    assert (await head(one.address, "/v2/library/x/manifests/t")).status == 200
    await idle(one)
    assert fetched(hub) == []


async def test_prefetch_can_be_turned_off(hub: FakeRegistry, tmp_path: Path) -> None:
    """Blobs are fetched when a client asks for them with `prefetch = 0`."""
    hub.add_image("library/x", "t", some_layers(2))
    async with prefetching(hub, tmp_path, 0) as mirror:
        await pull(mirror)
        assert workers(mirror) == []
    assert fetched(hub) == []


async def test_prefetch_ignores_an_index(hub: FakeRegistry, one: Running) -> None:
    """The platform is not known before its manifest is requested."""
    images = [hub.add_image("library/x", None, [layer]) for layer in some_layers(2)]
    index = image_index([image.manifest_data for image in images])
    hub.add_manifest("library/x", index, OCI_INDEX, "t")
    assert await pull(one) == index
    assert workers(one) == []
    await pull(one, images[1].manifest)
    await idle(one)
    assert fetched(hub) == names(*images[1].blobs)


async def test_prefetch_of_artifacts_without_foreign_layers(hub: FakeRegistry, one: Running) -> None:
    """A blob with `urls` need not be in the registry; a digest that is named twice is one blob."""
    config, layer = b"{}", b"a chart"
    layers = [
        {**descriptor("application/x", b"elsewhere"), "urls": ["https://elsewhere.test/"]},
        descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", layer),
        descriptor("application/x", layer),
    ]
    document = {
        "schemaVersion": 2,
        "artifactType": "application/x",
        "config": descriptor("application/x", config),
        "layers": layers,
    }
    hub.add_manifest("library/x", json.dumps(document).encode(), tag="t")
    digests = [hub.add_blob("library/x", data) for data in (config, layer)]
    await pull(one)
    await idle(one)
    assert fetched(hub) == names(*digests)


@pytest.mark.parametrize("data", [b'{"schemaVersion":2,"layers":[]}', b'{"layers":1}'])
async def test_prefetch_ignores_a_manifest_without_blobs(
    hub: FakeRegistry, one: Running, data: bytes
) -> None:
    """The manifest is served all the same, also one that does not parse."""
    hub.add_manifest("library/x", data, tag="t")
    assert await pull(one) == data
    assert workers(one) == []


async def test_prefetch_concurrency(hub: FakeRegistry, tmp_path: Path) -> None:
    """The next fill starts when one of the running ones is done."""
    image = hub.add_image("library/x", "t", some_layers(3))
    async with prefetching(hub, tmp_path, 2) as mirror:
        config, first, second, _ = gates = held(hub, image.blobs)
        await pull(mirror)
        await config.reached.wait()
        await first.reached.wait()
        await get(mirror.address, "/v2/")
        assert sorted(fetched(hub)) == sorted(names(*image.blobs[:2]))
        first.release()
        await second.reached.wait()
        for gate in gates:
            gate.release()
        await idle(mirror)
    assert len(fetched(hub)) == 4


async def test_prefetch_is_joined_by_a_client(hub: FakeRegistry, one: Running) -> None:
    """The upstream is asked once; a joined fill counts no longer as a prefetch, and the next one starts."""
    image = hub.add_image("library/x", "t", [BIG, b"more"])
    gates = held(hub, image.blobs)
    await pull(one)
    asking = []
    for digest, gate, next_gate in zip(image.blobs, gates, gates[1:], strict=False):
        await gate.reached.wait()
        asking.append(asyncio.ensure_future(get(one.address, blob(digest))))
        await next_gate.reached.wait()
    for gate in gates:
        gate.release()
    assert [reply.body for reply in await asyncio.gather(*asking)] == [image.config_data, BIG]
    await idle(one)
    assert fetched(hub) == names(*image.blobs)
    assert (await counted(one, "joined"), await counted(one, "stored")) == (2, 1)
    assert await one.metric('registry_mirror_requests_total{kind="blob",outcome="join"}') == 2


async def test_prefetch_skips_a_blob_that_a_client_fetches(hub: FakeRegistry, one: Running) -> None:
    """The client's fill is the only one, and does not count as a prefetch."""
    image = hub.add_image("library/x", "t", [BIG, b"more"])
    gate = hub.hold(image.layers[0], after=1)
    asking = asyncio.ensure_future(get(one.address, blob(image.layers[0])))
    await gate.reached.wait()
    await pull(one)
    await idle(one)
    assert sorted(fetched(hub)) == sorted(names(*image.blobs))
    gate.release()
    assert (await asking).body == BIG


async def test_prefetch_uses_one_connection_until_a_client_joins(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefetch uses as many connections as pay once a client waits."""
    monkeypatch.setattr(download, "TICK", 0.001)
    hub.piece = CHUNK
    image = hub.add_image("library/x", "t", [BIG])
    patient = PlanLimits(grace=60.0)  # a transfer held at a gate is not given up
    async with prefetching(hub, tmp_path, 1, patient, parallel=4, parallel_above=0) as mirror:
        mirror.service._upstreams["docker.io"].own.concurrency = 4
        first, second = hub.hold(image.layers[0], after=1), hub.hold(image.layers[0], after=1)
        await pull(mirror)
        await first.reached.wait()
        for _ in range(20):
            await get(mirror.address, "/v2/")
        assert hub.requests("GET", f"library/x/blobs/{image.layers[0]}") == 1
        asking = asyncio.ensure_future(get(mirror.address, blob(image.layers[0])))
        await second.reached.wait()
        first.release()
        second.release()
        assert (await asking).body == BIG
    assert await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}') == sum(
        len(data) for data in (image.manifest_data, image.config_data, BIG)
    )


async def test_prefetch_leaves_a_connection_for_clients(hub: FakeRegistry, tmp_path: Path) -> None:
    """An upstream with two transfers at a time has one for prefetches."""
    image = hub.add_image("library/x", "t", [b"first", b"second"])
    other = hub.add_blob("library/x", b"wanted now")
    config = configured(
        tmp_path / "cache",
        {"docker.io": hub.url},
        fill={"prefetch": 3},
        upstream={"max_connections": 3},
    )
    async with serving(config) as mirror:
        gate = hub.hold(image.config, after=1)
        await pull(mirror)
        await gate.reached.wait()
        assert (await get(mirror.address, blob(other))).body == b"wanted now"
        assert fetched(hub) == names(image.config, other)
        gate.release()
        await idle(mirror)
    assert fetched(hub) == names(image.config, other, *image.layers)


async def test_prefetch_does_not_use_a_single_connection(hub: FakeRegistry, tmp_path: Path) -> None:
    """Nothing is prefetched where there is only one connection."""
    hub.add_image("library/x", "t", [b"layer"])
    config = configured(
        tmp_path / "cache",
        {"docker.io": hub.url},
        fill={"prefetch": 3},
        upstream={"max_connections": 1},
    )
    async with serving(config) as mirror:
        await pull(mirror)
        assert workers(mirror) == []


async def test_prefetch_skips_stored_blobs(hub: FakeRegistry, one: Running) -> None:
    """A new tag on an old base prefetches the new blobs only."""
    base, top = some_layers(2)
    old = hub.add_image("library/x", "old", [base])
    await pull(one, "old")
    await idle(one)
    new = hub.add_image("library/x", "new", [base, top])
    await pull(one, "new")
    await idle(one)
    assert fetched(hub) == names(*old.blobs, new.config, new.layers[1])


async def test_prefetch_of_a_hot_manifest_does_not_read_the_disk(hub: FakeRegistry, one: Running) -> None:
    """A second time within ten minutes is a lookup; later the blobs are checked again."""
    image = hub.add_image("library/x", "t", some_layers(2))
    await pull(one)
    await idle(one)
    cache = one.service.cache
    await cache.origin(X).get_manifest(X, image.manifest)
    assert workers(one) == []
    cache.prefetch._examined = TTLCache(0.0, 1)
    for _ in range(2):
        await cache.origin(X).get_manifest(X, image.manifest)
        assert len(workers(one)) == 1
        await idle(one)
    assert fetched(hub) == names(*image.blobs)


async def test_prefetch_queue_is_bounded(
    hub: FakeRegistry, one: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest blobs are dropped, and counted; a client gets them as ever."""
    monkeypatch.setattr(prefetch, "QUEUE", 3)
    image = hub.add_image("library/x", "t", some_layers(5))
    await pull(one)
    await idle(one)
    assert fetched(hub) == names(*image.blobs[:3])
    assert await counted(one, "dropped") == 3
    assert (await get(one.address, blob(image.layers[4]))).body == image.layers_data[4]


async def test_prefetch_failure_is_not_reported(
    hub: FakeRegistry, one: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed prefetch is no failed download and no warning, and is not retried soon."""
    image = hub.add_image("library/x", "t", some_layers(2))
    hub.fault(Fault(status=404), image.layers[0])
    for _ in range(2):
        await pull(one)
        await idle(one)
    assert fetched(hub) == names(*image.blobs)
    assert (await counted(one, "failed"), await counted(one, "stored")) == (1, 2)
    assert await one.metric('registry_mirror_fill_failures_total{reason="not_found"}') == 0
    assert "failed" not in caplog.text
    assert (await get(one.address, blob(image.layers[0]))).body == image.layers_data[0]


async def test_prefetch_failure_with_a_client_is_reported(hub: FakeRegistry, one: Running) -> None:
    """The failure is reported, logged and counted as any other."""
    image = hub.add_image("library/x", "t", [])
    gate = Gate()
    hub.fault(Fault(status=500, hold=gate, after=-1), image.config)
    await pull(one)
    await gate.reached.wait()
    asking = asyncio.ensure_future(get(one.address, blob(image.config, "docker.io/library/x")))
    await idle(one)
    gate.release()
    assert (await asking).status == 424
    assert await one.metric('registry_mirror_fill_failures_total{reason="server_error"}') == 1
    assert await counted(one, "joined") == 1


async def test_prefetch_stops_after_a_429(hub: FakeRegistry, one: Running) -> None:
    """Nothing is prefetched until Retry-After is over; manifests are still served."""
    image = hub.add_image("library/x", "t", some_layers(3))
    hub.fault(Fault(status=429, headers={"Retry-After": "30"}), image.config)
    await pull(one)
    await idle(one)
    assert fetched(hub) == names(image.config)
    assert (await counted(one, "failed"), await counted(one, "dropped")) == (1, 3)
    other = hub.add_image("library/x", "other", some_layers(1))
    assert await pull(one, "other") == other.manifest_data
    assert workers(one) == []
    own = one.service._upstreams["docker.io"].own
    own._throttled_until = own.registry.accounts.all[0].rate_limit._paused_until = 0.0
    await pull(one, "other")
    await idle(one)
    assert fetched(hub) == names(image.config, *other.blobs)


async def test_prefetch_stops_at_an_upstream_that_is_down(hub: FakeRegistry, one: Running) -> None:
    """The rest of the image is dropped after three failures."""
    image = hub.add_image("library/x", "t", some_layers(6))
    hub.fault(Fault(status=503), "/blobs/", times=99)
    await pull(one)
    await idle(one)
    assert fetched(hub) == names(*image.blobs[:3])
    assert (await counted(one, "failed"), await counted(one, "dropped")) == (3, 4)


async def test_prefetch_ignores_a_stale_manifest(hub: FakeRegistry, one: Running) -> None:
    """The upstream has just failed to answer."""
    data = image_manifest(b"{}", [b"layer"])
    stale = ManifestAnswer(data, Digest.of(data), OCI_MANIFEST, Outcome.STALE)
    one.service.cache.prefetch.enqueue(X, stale)
    assert workers(one) == []


async def started(hub: FakeRegistry, mirror: Running) -> tuple[FakeImage, Gate]:
    """Start the prefetch of a large layer, of which a part is here and the rest is held."""
    hub.piece = CHUNK
    image = hub.add_image("library/x", "t", [BIG, b"more"])
    gate = hub.hold(image.layers[0], after=LARGE // 2 // CHUNK * CHUNK)
    await pull(mirror)
    await gate.reached.wait()
    flight = mirror.service.cache._blobs._flights.get(image.layers[0])
    assert flight is not None
    growing = await flight.wait_content()
    assert isinstance(growing, GrowingFile)
    await growing.wait_readable(0)
    return image, gate


async def test_prefetch_is_cancelled_when_the_mirror_stops(hub: FakeRegistry, one: Running) -> None:
    """Prefetches end at once, while clients are still served; a later request resumes the fill."""
    image, gate = await started(hub, one)
    flight = one.service.cache._blobs._flights.get(image.layers[0])
    one.service.cache.prefetch.stop()
    # A client that found the flight a moment before starts again.
    assert flight is not None
    flight.join(TimeLimit())
    assert await flight.wait_content() is None
    await idle(one)
    assert (await counted(one, "cancelled"), await counted(one, "dropped")) == (1, 1)
    assert (await get(one.address, blob(image.layers[0]))).body == BIG
    gate.release()
    first, second = [seen for seen in hub.log if str(image.layers[0]) in seen.path]
    assert first.headers.get("Range") is None
    assert int(second.headers["Range"].removeprefix("bytes=").partition("-")[0]) > 0
    await pull(one, image.manifest)
    assert workers(one) == []


async def test_prefetch_with_a_client_is_not_cancelled(hub: FakeRegistry, one: Running) -> None:
    """A joined fill is the client's, and the drain lets it finish."""
    image, gate = await started(hub, one)
    more = hub.hold(image.layers[1], after=1)
    asking = asyncio.ensure_future(get(one.address, blob(image.layers[0])))
    await more.reached.wait()
    ending = one.service.cache._blobs._flights.get(image.layers[1])
    assert ending is not None
    one.stop.set()
    await ending.wait_done()
    gate.release()
    assert (await asking).body == BIG
    assert (await counted(one, "joined"), await counted(one, "cancelled")) == (1, 1)


async def test_prefetch_is_cancelled_on_disk_trouble(hub: FakeRegistry, one: Running) -> None:
    """All prefetches end when any fill fails because of the disk, and no new one starts."""
    await started(hub, one)
    broken = hub.add_blob("library/x", b"cannot be written")
    data = one.config.cache.dir / "partial" / f"sha256-{broken.encoded}.data"
    await asyncio.to_thread(data.symlink_to, "/dev/full")
    assert (await get(one.address, blob(broken, "docker.io/library/x"))).body == b"cannot be written"
    await idle(one)
    assert (await counted(one, "cancelled"), await counted(one, "dropped")) == (1, 1)
    hub.add_image("library/x", "other", [b"layer"])
    await pull(one, "other")
    assert workers(one) == []


async def test_prefetch_stops_when_there_is_too_little_room(hub: FakeRegistry, tmp_path: Path) -> None:
    """A prefetch starts only if it fits: it evicts nothing."""
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, fill={"prefetch": 1})
    room = config.cache.model_copy(update={"max_size": Amount(800_000)})
    image = hub.add_image("library/x", "t", some_layers(5, 300_000))
    async with serving(config.model_copy(update={"cache": room})) as mirror:
        await pull(mirror)
        await idle(mirror)
        asked = [hub.requests("GET", layer) for layer in image.layers]
        assert asked == [1, 1, 0, 0, 0]
        assert await mirror.metric('registry_mirror_prefetched_blobs_total{outcome="dropped"}') == 3
        for layer, data in zip(image.layers, image.layers_data, strict=True):
            assert (await get(mirror.address, blob(layer))).body == data


async def test_prefetched_blob_is_not_served_without_a_link(hub: FakeRegistry, one: Running) -> None:
    """A private repository's layers are served for that repository, and for no other."""
    hub.auth = TokenAuth()
    image = hub.add_image("library/x", "t", [b"a secret"])
    hub.add_blob("library/y", b"something else")
    await pull(one)
    await idle(one)
    assert (await get(one.address, blob(image.layers[0]))).body == b"a secret"
    assert (await get(one.address, blob(image.layers[0], "library/y"))).status == 404
    assert hub.requests("GET", f"library/x/blobs/{image.layers[0]}") == 1
