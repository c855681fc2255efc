"""Puller: whole images through the cache, behind clients, once for all processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.cache.pull.puller import ImagePull
from mirror.cache.pull.walk import Wanted
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.reference import Repository, Tag
from mirror.service.service import Service
from mirror.util.progress.amounts import ImageProgress
from tests.fakes.access import TokenAuth
from tests.fakes.content import FakeImage, image_index, some_layers
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE_DATA, Running, configured, mirror_of, serving
from tests.wire import get

X = Repository("docker.io", "library/x")
T = Tag("t")
EVERYTHING = Wanted()
BIG = LARGE_DATA


@asynccontextmanager
async def running(hub: FakeRegistry, folder: Path, **sections: Any) -> AsyncIterator[Running]:
    async with mirror_of(hub, folder / "cache", tags={"fresh": 0, "missing": 0}, **sections) as mirror:
        yield mirror


@pytest.fixture
async def mirror(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with running(hub, tmp_path) as opened:
        yield opened


def pull_of(service: Service, wanted: Wanted = EVERYTHING, reference: Tag | Digest = T) -> ImagePull:
    return service.cache.pulls.pull(X, reference, wanted)


async def pulled(service: Service, wanted: Wanted = EVERYTHING) -> ImageProgress:
    """Pull `x:t`, and return the result."""
    result = [each async for each in pull_of(service, wanted)][-1]
    assert result.ended
    return result


async def is_served(address: str, image: FakeImage, repository: str = "library/x") -> bool:
    """Return whether a client gets the manifest and each blob of the image."""
    manifest = await get(address, f"/v2/{repository}/manifests/{image.manifest}")
    blobs = [(await get(address, f"/v2/{repository}/blobs/{each}")).body for each in image.blobs]
    return manifest.body == image.manifest_data and tuple(blobs) == image.blobs_data


async def test_pull_fetches_each_part_once_and_again_nothing(hub: FakeRegistry, mirror: Running) -> None:
    """A second pull asks about the tag only; the image is served without the upstream."""
    image = hub.add_image("library/x", "t", [*some_layers(5), BIG])
    first = await pulled(mirror.service)
    total = len(image.manifest_data) + sum(map(len, image.blobs_data))
    assert (first.name, first.state) == ("docker.io/library/x:t", "done")
    assert (first.bytes.done, first.bytes.total) == (total, total)
    assert (first.items.done, first.items.total) == (8, 8)
    assert all(hub.requests("GET", each) == 1 for each in image.blobs)
    asked = hub.requests("GET")
    second = await pulled(mirror.service)
    assert (second.state, second.bytes.total) == ("present", 0)
    assert hub.requests("GET") == asked
    hub.fault(Fault(status=500), times=999)
    assert await is_served(mirror.address, image)


async def test_pull_shows_bytes_of_a_running_fill(hub: FakeRegistry, mirror: Running) -> None:
    """The progress counts what the growing file has."""
    image = hub.add_image("library/x", "t", [BIG])
    gate = hub.hold(image.layers[0], after=2 * CHUNK)
    async for each in pull_of(mirror.service):
        if each.bytes.done > CHUNK and not each.ended:
            gate.release()
    assert each.state == "done"


async def test_pull_joined_by_a_client_is_one_fetch(hub: FakeRegistry, mirror: Running) -> None:
    """A client's request joins the flight of the pull."""
    image = hub.add_image("library/x", "t", [BIG])
    gate = hub.hold(image.layers[0], after=1)
    client, pull = None, pull_of(mirror.service)
    async for each in pull:
        if client is None and each.bytes.total is not None and await gate.reached.wait():
            client = asyncio.create_task(get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}"))
        if client is not None and (flight := pull.flights.get(image.layers[0])) and flight.clients:
            gate.release()
    assert client is not None
    assert (await client).body == BIG
    assert each.state == "done"


async def test_pull_waits_for_a_clients_fill(hub: FakeRegistry, mirror: Running) -> None:
    """A blob that a client fetches already is not fetched again."""
    image = hub.add_image("library/x", "t", [BIG])
    gate = hub.hold(image.layers[0], after=1)
    client = asyncio.create_task(get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}"))
    await gate.reached.wait()
    seen = False
    pull = pull_of(mirror.service)
    async for each in pull:
        if pull.flights and not each.ended:
            seen = True
            gate.release()
    assert seen
    assert (await client).body == BIG
    assert each.state == "done"


async def test_pull_that_is_left_ends_its_fills_and_goes_on_later(hub: FakeRegistry, mirror: Running) -> None:
    """The partial stays: the next pull asks for the rest of the blob."""
    image = hub.add_image("library/x", "t", [BIG])
    gate = hub.hold(image.layers[0], after=3 * CHUNK)
    async with aclosing(pull_of(mirror.service).__aiter__()) as progress:
        async for each in progress:
            if each.bytes.done > CHUNK:
                break
    assert mirror.service.cache._blobs._flights.get(image.layers[0]) is None
    gate.release()
    assert (await pulled(mirror.service)).state == "done"
    ranges = [seen.headers.get("Range") for seen in hub.log if str(image.layers[0]) in seen.path]
    assert ranges[0] is None or ranges[0].startswith("bytes=0-")
    assert ranges[-1] is not None
    assert not ranges[-1].startswith("bytes=0-")


async def test_pull_names_what_is_missing_and_why(hub: FakeRegistry, mirror: Running) -> None:
    """All else of the image is fetched."""
    image = hub.add_image("library/x", "t", [*some_layers(3), BIG])
    lost = image.layers[1]
    del hub.repository("library/x").blobs[str(lost)]
    pull = pull_of(mirror.service)
    result = [each async for each in pull][-1]
    assert result.state == "failed"
    assert list(pull.missing) == [str(lost)]
    assert result.reason.startswith(f"{lost} is missing: ")
    assert await mirror.service._store.content.missing_blobs(list(image.blobs)) == [lost]
    hub.add_blob("library/x", image.layers_data[1])
    assert (await pulled(mirror.service)).state == "done"


async def test_pull_of_what_does_not_exist_fails(hub: FakeRegistry, mirror: Running) -> None:
    result = await pulled(mirror.service)
    assert result.state == "failed"
    assert "NAME_UNKNOWN" in result.reason


async def test_pull_says_that_a_tag_is_not_confirmed(hub: FakeRegistry, mirror: Running) -> None:
    """All of the image is here, but perhaps there is a newer one."""
    hub.add_image("library/x", "t", some_layers(2))
    await pulled(mirror.service)
    hub.fault(Fault(status=500), times=999)
    pull = pull_of(mirror.service)
    result = [each async for each in pull][-1]
    assert result.state == "failed"
    assert result.reason.startswith("the tag t is not confirmed: ")
    assert not pull.missing


async def test_pull_for_a_second_repository_is_confirmed_there(hub: FakeRegistry, tmp_path: Path) -> None:
    """Content that came with an account for one repository opens for another one by its own word."""
    hub.auth = TokenAuth(users={"me": "secret"})
    image = hub.add_image("library/x", "t", some_layers(2))
    hub.add_image("library/y", "t", some_layers(2))
    account = {"username": "me", "password": "secret"}
    async with running(hub, tmp_path, upstream=account) as mirror:
        assert (await pulled(mirror.service)).state == "done"
        other = mirror.service.cache.pulls.pull(Repository("docker.io", "library/y"), T)
        assert [each async for each in other][-1].state == "done"
        for layer in image.layers:
            assert hub.requests("GET", layer) == 1
            assert hub.requests("HEAD", f"library/y/blobs/{layer}") == 1


async def test_pull_larger_than_the_cache_says_so(hub: FakeRegistry, tmp_path: Path) -> None:
    """A blob that was evicted again is missing."""
    layers = [bytes([number]) * 600_000 for number in range(4)]
    hub.add_image("library/x", "t", layers)
    config = configured(tmp_path / "cache", {"docker.io": hub.url})
    cache = config.cache.model_copy(update={"max_size": Amount(1_500_000)})
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        pull = pull_of(mirror.service)
        result = [each async for each in pull][-1]
    assert result.state == "failed"
    assert "too little room" in result.reason


async def test_pull_makes_room(hub: FakeRegistry, tmp_path: Path) -> None:
    """Least recently used images give way, as for a client; a prefetch would be dropped."""
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, tags={"fresh": 0})
    cache = config.cache.model_copy(update={"max_size": Amount(1_500_000)})
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        for number in range(3):
            hub.add_image("library/x", "t", [bytes([number]) * 900_000])
            result = await pulled(mirror.service)
            assert result.state == "done", result.reason


async def test_pull_of_some_platforms(hub: FakeRegistry, mirror: Running) -> None:
    images = [hub.add_image("library/x", None, [layer]) for layer in some_layers(3)]
    hub.add_manifest("library/x", image_index([each.manifest_data for each in images]), OCI_INDEX, "t")
    assert (await pulled(mirror.service, Wanted(("linux/arch0", "linux/arch2")))).state == "done"
    here = [not await mirror.service._store.content.missing_blobs(list(each.blobs)) for each in images]
    assert here == [True, False, True]


async def test_pull_gives_way_to_clients(hub: FakeRegistry, tmp_path: Path) -> None:
    """A client's blob comes first where one connection is all there is."""
    image = hub.add_image("library/x", "t", [BIG])
    other = hub.add_blob("library/y", BIG[::-1])
    gate = hub.hold(image.layers[0], after=CHUNK)
    async with running(hub, tmp_path, fill={"connections": 1}) as mirror:
        client = None
        async for each in pull_of(mirror.service):
            if client is None and each.bytes.done > CHUNK // 2:
                client = await get(mirror.address, f"/v2/library/y/blobs/{other}")
                gate.release()
        assert client is not None
        assert client.body == BIG[::-1]
        assert each.state == "done"


async def test_pull_stops_with_the_mirror(hub: FakeRegistry, tmp_path: Path) -> None:
    image = hub.add_image("library/x", "t", [BIG])
    gate = hub.hold(image.layers[0], after=1)
    service = await Service.open(configured(tmp_path / "cache", {"docker.io": hub.url}))
    closing = None
    async for each in pull_of(service):
        if closing is None and each.bytes.total is not None and await gate.reached.wait():
            closing = asyncio.create_task(service.close())
    gate.release()
    assert closing is not None
    await closing
    assert each.state == "failed"


async def test_pulls_of_two_processes_fetch_each_blob_once(hub: FakeRegistry, tmp_path: Path) -> None:
    """A pull beside a mirror shares its folder as one more worker, and the mirror serves what came."""
    image = hub.add_image("library/x", "t", [*some_layers(8), BIG, BIG[::-1]])
    async with running(hub, tmp_path) as mirror:
        beside = await Service.open_beside(mirror.config)
        results = await asyncio.gather(pulled(mirror.service), pulled(beside))
        await beside.close()
        assert [each.state for each in results] == ["done", "done"]
        assert [hub.requests("GET", each) for each in image.blobs] == [1] * len(image.blobs)
        hub.fault(Fault(status=500), times=999)
        assert await is_served(mirror.address, image)


async def test_pull_beside_a_mirror_is_served_without_a_restart(hub: FakeRegistry, tmp_path: Path) -> None:
    """A mirror that answered 404 for the image serves it once it was pulled."""
    async with running(hub, tmp_path) as mirror:
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 404
        image = hub.add_image("library/x", "t", [*some_layers(2), BIG])
        beside = await Service.open_beside(mirror.config)
        assert (await pulled(beside)).state == "done"
        await beside.close()
        hub.fault(Fault(status=500), times=999)
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).body == image.manifest_data
        assert await is_served(mirror.address, image)
