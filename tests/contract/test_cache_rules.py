"""Limits of single repositories (`[[cache.rules]]`), as clients and operators see them."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.config.cache_rules import CacheRuleSettings
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.service.service import Service
from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import get

MIB = 1024 * 1024
MODEL, OTHER = "models/big", "library/x"


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as hub:
        yield hub


def noise(seed: str, size: int = MIB) -> bytes:
    return random.Random(seed).randbytes(size)


def rule(repositories: str = "docker.io/models/*", **limits: Any) -> CacheRuleSettings:
    return CacheRuleSettings.model_validate({"repositories": repositories, **limits})


class Place:
    """A mirror with rules and a quota."""

    def __init__(self, hub: FakeRegistry, folder: Path, *rules: CacheRuleSettings, quota: int = 0) -> None:
        config = configured(folder / "cache", {"docker.io": hub.url})
        cache = config.cache.model_copy(update={"rules": rules, "max_size": Amount(quota)})
        self.config = config.model_copy(update={"cache": cache})


async def pull(mirror: Running, image: FakeImage) -> None:
    """Pull an image as a client does; each body is right."""
    base = f"/v2/{image.repository}"
    assert (await get(mirror.address, f"{base}/manifests/{image.tag}")).status == 200
    for digest, data in zip(image.layers, image.layers_data, strict=True):
        reply = await get(mirror.address, f"{base}/blobs/{digest}")
        assert (reply.status, reply.body) == (200, data)
        await mirror.landed(digest)


async def here(mirror: Running, image: FakeImage) -> list[bool]:
    """Return which layers of the image are cached."""
    has: Callable[[Digest], bool] = mirror.service.folder.reader.has
    return [await asyncio.to_thread(has, digest) for digest in image.layers]


async def test_rule_passes_a_large_blob_through(hub: FakeRegistry, tmp_path: Path) -> None:
    """Each client gets it, the log and the access line say why, and it is not kept; smaller ones are."""
    place = Place(hub, tmp_path, rule(max_blob="1500KiB"))
    async with serving(place.config) as mirror:
        image = hub.add_image(MODEL, "t", [noise("small"), noise("large", 6 * MIB)])
        with capture_logs() as lines:
            await pull(mirror, image)
            await pull(mirror, image)
        assert await here(mirror, image) == [True, False]
        # Each client its own transfer, and no other request for its bytes.
        assert hub.requests("GET", image.layers[1]) == 2
        notes = [line["note"] for line in lines if line.get("outcome") == "passed"]
        assert len(notes) == 2
        assert "max_blob is 1536000 in [[cache.rules]] for docker.io/models/*" in notes[0]


async def test_rule_is_for_its_repositories_only(hub: FakeRegistry, tmp_path: Path) -> None:
    """The first rule that matches counts; what none matches has the quota alone."""
    rules = (rule("docker.io/models/exempt", max_blob="1GiB"), rule(max_blob="1MiB"))
    place = Place(hub, tmp_path, *rules)
    async with serving(place.config) as mirror:
        for repository, kept in ((OTHER, True), ("models/exempt", True), (MODEL, False)):
            image = hub.add_image(repository, "t", [noise(repository, 2 * MIB)])
            await pull(mirror, image)
            assert await here(mirror, image) == [kept]


async def test_rule_of_a_blob_without_a_size_in_its_manifest(hub: FakeRegistry, tmp_path: Path) -> None:
    """The response tells the size, and nothing of it is kept."""
    place = Place(hub, tmp_path, rule(max_blob="1MiB"))
    async with serving(place.config) as mirror:
        data = noise("alone", 6 * MIB)
        digest = hub.add_blob(MODEL, data)
        reply = await get(mirror.address, f"/v2/{MODEL}/blobs/{digest}")
        assert (reply.status, reply.body) == (200, data)
        assert not await asyncio.to_thread(mirror.service.folder.reader.has, digest)


async def test_share_evicts_a_repositorys_own_blobs(hub: FakeRegistry, tmp_path: Path) -> None:
    """Least recently used first, and what other repositories have stays, though it was used less recently."""
    place = Place(hub, tmp_path, rule(max_share="3500KiB"), quota=100 * MIB)
    async with serving(place.config) as mirror:
        other = hub.add_image(OTHER, "t", [noise("other", 3 * MIB)])
        await pull(mirror, other)
        model = hub.add_image(MODEL, "1", [noise(f"m{number}") for number in range(3)])
        await pull(mirror, model)
        assert await here(mirror, model) == [True, True, True]
        newer = hub.add_image(MODEL, "2", [noise("newer")])
        with capture_logs() as lines:
            await pull(mirror, newer)
        assert await here(mirror, model) == [False, True, True]
        assert await here(mirror, newer) == await here(mirror, other) == [True]
        events = [line for line in lines if "beyond its share" in line["event"]]
        assert [line["repository"] for line in events] == [f"docker.io/{MODEL}"]
        evicted = 'registry_mirror_evicted_bytes_total{reason="share"}'
        assert await mirror.metric(evicted) == MIB


async def test_share_of_a_large_model_spares_everything_else(hub: FakeRegistry, tmp_path: Path) -> None:
    """A model as large as the quota: without a rule it would evict what others pull; with one it does not."""
    for rules, spared in (((), False), ((rule(max_share="25%"),), True)):
        folder = tmp_path / str(spared)
        await asyncio.to_thread(folder.mkdir)
        place = Place(hub, folder, *rules, quota=12 * MIB)
        async with serving(place.config) as mirror:
            image = hub.add_image(OTHER, "t", [noise("other", 4 * MIB)])
            await pull(mirror, image)
            model = hub.add_image(MODEL, "m", [noise(f"big{number}", 2 * MIB) for number in range(6)])
            await pull(mirror, model)
            assert await here(mirror, image) == [spared]


async def test_share_refuses_a_blob_that_exceeds_it_alone(hub: FakeRegistry, tmp_path: Path) -> None:
    """Nothing is evicted for it."""
    place = Place(hub, tmp_path, rule(max_share="2MiB"))
    async with serving(place.config) as mirror:
        first = hub.add_image(MODEL, "1", [noise("first")])
        await pull(mirror, first)
        await pull(mirror, hub.add_image(MODEL, "2", [noise("huge", 6 * MIB)]))
        assert await here(mirror, first) == [True]


async def test_share_counts_a_shared_blob_in_parts(hub: FakeRegistry, tmp_path: Path) -> None:
    """Half of it for each of two repositories; it is evicted for none of them."""
    place = Place(hub, tmp_path, rule(max_share="2600KiB"))
    async with serving(place.config) as mirror:
        base = noise("base", 2 * MIB)
        for repository in (MODEL, "models/copy"):
            await pull(mirror, hub.add_image(repository, "base", [base]))
        model = hub.add_image(MODEL, "1", [noise("own")])
        await pull(mirror, model)
        assert await here(mirror, model) == [True]  # 1 MiB and half of 2 MiB
        newer = hub.add_image(MODEL, "2", [noise("newer")])
        await pull(mirror, newer)
        assert await here(mirror, model) == [False]
        assert await here(mirror, newer) == [True]
        assert await asyncio.to_thread(mirror.service.folder.reader.has, Digest.of(base))


async def test_share_leaves_pinned_blobs(hub: FakeRegistry, tmp_path: Path) -> None:
    """The next one in the order goes in their place."""
    place = Place(hub, tmp_path, rule(max_share="2500KiB"))
    async with serving(place.config) as mirror:
        pinned = hub.add_image(MODEL, "pinned", [noise("pinned")])
        plain = hub.add_image(MODEL, "plain", [noise("plain")])
        await pull(mirror, pinned)
        await pull(mirror, plain)
        pin = Pin.parse(f"docker.io/{MODEL}:pinned")
        await asyncio.to_thread(mirror.service.folder.pinning.pin, pin)
        await pull(mirror, hub.add_image(MODEL, "more", [noise("more")]))
        assert await here(mirror, pinned) == [True]
        assert await here(mirror, plain) == [False]


async def test_share_holds_after_a_restart(hub: FakeRegistry, tmp_path: Path) -> None:
    """Blobs that an earlier process has cached count."""
    place = Place(hub, tmp_path, rule(max_share="2500KiB"))
    first = hub.add_image(MODEL, "1", [noise("one"), noise("two")])
    async with serving(place.config) as mirror:
        await pull(mirror, first)
    service = await Service.open(place.config)
    await service.close()
    async with serving(place.config) as mirror:
        await pull(mirror, hub.add_image(MODEL, "2", [noise("three")]))
        assert await here(mirror, first) == [False, True]
