"""Mirrors with a shared tier, on real engines: one download for all, and each alone when an engine fails."""

import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from mirror.access.peer_proof import REQUEST_HEADER, PeerProof, subject
from mirror.access.tokens import TokenEntry, digest_of, new_secret
from mirror.config.tier.shared import SharedSettings
from mirror.manage.tokens import tokens_of
from mirror.oci.digest import Digest
from mirror.shared.s3 import S3Objects
from mirror.store.tokens.token_store import TokenStore
from mirror.transfer.shared import lead_window
from mirror.util.tasks import Tasks
from tests.engines import (
    BUCKET,
    PASSWORD,
    SECRET_KEY,
    Engine,
    bucket_of,
    client_of,
    free_port,
    redis_server,
    running,
    seaweedfs,
    settings_of,
)
from tests.fakes.faults import Fault, Gate
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, serving
from tests.wire import Wire, get

pytestmark = [pytest.mark.slow, pytest.mark.needs("redis-server")]

MiB = 1024 * 1024
X = "/v2/docker.io/library/x"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(seaweedfs(tmp_path_factory.mktemp("seaweedfs"))) as engine:
        yield engine


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(redis_server(tmp_path_factory.mktemp("redis"))) as engine:
        yield engine


@pytest.fixture
def settings(store: Engine, coordinator: Engine) -> SharedSettings:
    """A tier that is empty."""
    return settings_of(store, coordinator, prefix=os.urandom(4).hex())


@asynccontextmanager
async def sharing(
    fake: FakeRegistry, cache: Path, settings: SharedSettings, *, ready: bool = True, parallel: int = 1
) -> AsyncIterator[Running]:
    """A mirror with the tier, which is in use with `ready`."""
    # One connection, so that a held answer holds the download.
    config = configured(cache, {"docker.io": fake.url}, shared=settings, fill={"parallel": parallel})
    async with serving(config) as mirror:
        await until(lambda: not ready or state(mirror)["objects"]["usable"])
        yield mirror


async def until(condition: Callable[[], object]) -> None:
    """Wait until a background task of a mirror has come so far."""
    while not condition():  # noqa: ASYNC110  # of another program's answer
        await asyncio.sleep(0.01)


def state(mirror: Running) -> dict[str, dict[str, object]]:
    found = mirror.service.state.shared()
    assert found is not None
    return found


@asynccontextmanager
async def bucket(settings: SharedSettings) -> AsyncIterator[S3Objects]:
    """The tier's bucket, as nobody's mirror sees it."""
    objects = S3Objects(settings, bucket_of(settings))
    yield objects
    await objects.close()


async def written(settings: SharedSettings, *digests: Digest) -> None:
    """Wait until the bucket has these blobs."""
    async with bucket(settings) as objects:
        for digest in digests:
            while await objects.stat(digest) is None:  # noqa: ASYNC110  # written behind
                await asyncio.sleep(0.01)


def blob() -> bytes:
    return os.urandom(1024) * (LARGE // 1024)


async def pull(mirror: Running, digest: Digest, repository: str = X) -> bytes:
    reply = await get(mirror.address, f"{repository}/blobs/{digest}")
    assert (reply.status, reply.complete) == (200, True), reply
    return reply.body


async def test_shared_blob_is_downloaded_once_for_two_mirrors(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings
) -> None:
    """The second mirror asks its upstream whether the repository has the blob, and gets it from the tier."""
    data = blob()
    digest = fake.add_blob("library/x", data)
    async with sharing(fake, tmp_path / "a", settings) as first:
        assert await pull(first, digest) == data
        await written(settings, digest)
        assert await first.metric('registry_mirror_shared_fills_total{outcome="upstream"}') == 1
    asked = fake.requests("GET", digest)
    async with sharing(fake, tmp_path / "b", settings) as second:
        assert await pull(second, digest) == data
        await second.landed(digest)
        assert fake.requests("GET", digest) == asked
        assert await second.metric('registry_mirror_shared_fills_total{outcome="tier"}') == 1
        received = await second.metric('registry_mirror_shared_bytes_total{direction="received"}')
        assert received == len(data)


async def test_shared_blob_needs_a_link_of_the_mirror(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings
) -> None:
    """A repository that has not the blob upstream gets nothing from the tier, named by a manifest or not."""
    data = blob()
    digest = fake.add_blob("library/x", data)
    async with sharing(fake, tmp_path / "a", settings) as first:
        assert await pull(first, digest) == data
        await written(settings, digest)
    image = fake.add_image("library/evil", "t", [data])
    del fake.repository("library/evil").blobs[str(digest)]
    async with sharing(fake, tmp_path / "b", settings) as second:
        evil = "/v2/docker.io/library/evil"
        assert (await get(second.address, f"{evil}/blobs/{digest}")).status == 404
        await get(second.address, f"{evil}/manifests/{image.manifest}")
        assert (await get(second.address, f"{evil}/blobs/{digest}")).status == 404
        assert await second.metric('registry_mirror_shared_bytes_total{direction="received"}') == 0


async def test_shared_blob_with_wrong_bytes_is_replaced(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings
) -> None:
    """No client gets wrong bytes; the right ones come from the upstream, and go to the tier."""
    data = blob()
    digest = fake.add_blob("library/x", data)
    async with bucket(settings) as objects:
        await objects.create(f"blobs/sha256/{digest.encoded[:2]}/{digest.encoded}", b"!" + data[1:])
        async with sharing(fake, tmp_path / "a", settings) as mirror:
            reply = await get(mirror.address, f"{X}/blobs/{digest}")
            assert reply.body == data or not reply.complete
            await mirror.landed(digest)
            assert await pull(mirror, digest) == data
            await written(settings, digest)
        async with sharing(fake, tmp_path / "b", settings) as other:
            assert await pull(other, digest) == data


async def test_shared_tier_that_is_down_at_start_stops_nothing(
    fake: FakeRegistry, tmp_path: Path, store: Engine
) -> None:
    """The mirror starts, serves, and says what is wrong."""
    data = blob()
    digest = fake.add_blob("library/x", data)
    nowhere = SharedSettings.model_validate(
        {"url": "s3://mirrors", "endpoint": "http://127.0.0.1:9", "coordinator": "redis://127.0.0.1:9"}
    )
    async with sharing(fake, tmp_path / "a", nowhere, ready=False) as mirror:
        assert await pull(mirror, digest) == data
        await until(lambda: state(mirror)["objects"]["reason"])
        ready = json.loads((await get(mirror.address, "/readyz")).body)
        assert ready["ready"]
        assert "s3://mirrors" in ready["shared"]["objects"]["reason"]
        assert await mirror.metric('registry_mirror_shared_up{engine="objects"}') == 0


async def test_shared_tier_is_not_waited_for(
    fake: FakeRegistry, tmp_path: Path, store: Engine, coordinator: Engine
) -> None:
    """A pull goes on after the time limits while both engines are stopped, and the next one at once."""
    digests = {fake.add_blob("library/x", data): data for data in (blob(), blob())}
    prefix = os.urandom(4).hex()
    settings = settings_of(store, coordinator, prefix=prefix, timeout=0.3)
    async with sharing(fake, tmp_path / "a", settings) as mirror:
        store.stop()
        coordinator.stop()
        try:
            for digest, data in digests.items():
                assert await pull(mirror, digest) == data
            assert "within 0.3 s" in str(state(mirror)["leases"]["reason"])
        finally:
            store.go_on()
            coordinator.go_on()
        # Once it answers again. This look has the usual time for that: engines go on slowly.
        await written(settings_of(store, coordinator, prefix=prefix), *digests)


async def test_shared_leases_may_be_flushed(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings, coordinator: Engine
) -> None:
    """A coordinator that has forgotten everything in mid-download costs nothing here."""
    data = blob()
    digest = fake.add_blob("library/x", data)
    async with sharing(fake, tmp_path / "a", settings) as mirror:
        gate = fake.hold(digest, after=-1)
        pulling = asyncio.ensure_future(pull(mirror, digest))
        await gate.reached.wait()
        await flush(coordinator)
        gate.release()
        assert await pulling == data
        await written(settings, digest)


async def test_shared_leases_may_be_lost_with_their_server(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings, coordinator: Engine
) -> None:
    """A coordinator that is killed in mid-download fails no pull; started again, it is used."""
    digests = {fake.add_blob("library/x", data): data for data in (blob(), blob())}
    (first, data), (second, other) = digests.items()
    async with sharing(fake, tmp_path / "a", settings) as mirror:
        gate = fake.hold(first, after=-1)
        pulling = asyncio.ensure_future(pull(mirror, first))
        await gate.reached.wait()
        await asyncio.to_thread(coordinator.kill)
        try:
            gate.release()
            assert await pulling == data
            assert await pull(mirror, second) == other
            await written(settings, first, second)
            assert "coordinator" in str(state(mirror)["leases"]["reason"])
        finally:
            await asyncio.to_thread(coordinator.start)
        tier = mirror.service.shared.tier if mirror.service.shared is not None else None
        assert tier is not None
        while await tier.claim(Digest.of(b"next")) is None:  # noqa: ASYNC110  # asked again after a pause
            await asyncio.sleep(0.05)


async def test_shared_upload_beside_a_fill_that_fails_leaves_no_parts(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings, store: Engine
) -> None:
    """Parts of the blob are at the store while the upstream sends; none is when the fill has failed."""
    data = os.urandom(1024) * (12 * 1024)
    digest, gate = fake.add_blob("library/x", data), Gate()
    fake.fault(Fault(hold=gate, after=len(data) - MiB, cut_at=len(data) - MiB + 1), digest)
    fake.fault(Fault(status=404), digest, times=100)
    async with sharing(fake, tmp_path / "a", settings) as mirror:
        pulling = asyncio.ensure_future(get(mirror.address, f"{X}/blobs/{digest}"))
        while not await asyncio.to_thread(uploads, store):  # noqa: ASYNC110  # of another program
            await asyncio.sleep(0.02)
        gate.release()
        assert not (await pulling).complete
        while await asyncio.to_thread(uploads, store):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with bucket(settings) as objects:
        assert await objects.stat(digest) is None


def uploads(store: Engine) -> list[object]:
    """Return the uploads that the store has begun and not completed."""
    client = client_of(store)
    found: list[object] = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    client.close()
    return found


async def flush(coordinator: Engine) -> None:
    from redis.asyncio import Redis

    async with Redis(port=coordinator.port, password=PASSWORD, driver_info=None) as redis:
        await redis.flushall()


PEERS = {"peers_listen": "127.0.0.1:0", "peers_secret": "a-secret-of-all-mirrors"}


def with_peers(settings: SharedSettings) -> SharedSettings:
    values = {name: getattr(settings, name) for name in SharedSettings.options()}
    return SharedSettings.model_validate(values | PEERS)


async def test_shared_blob_is_followed_while_another_mirror_downloads_it(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings, tasks: Tasks
) -> None:
    """The second mirror's client has bytes while the upstream still sends, and each byte is sent once."""
    data, settings = blob() + blob(), with_peers(settings)
    digest = fake.add_blob("library/x", data)
    gate = fake.hold(digest, after=len(data) - 3 * MiB)
    async with (
        sharing(fake, tmp_path / "a", settings) as first,
        sharing(fake, tmp_path / "b", settings) as second,
    ):
        leading = tasks.spawn(pull(first, digest), name="leading")
        await gate.reached.wait()
        async with await Wire.open(second.address) as wire:
            wire.send("GET", f"{X}/blobs/{digest}")
            head = await wire.head()
            assert head.status == 200
            begun = await wire.reader.readexactly(1 * MiB)
            assert begun == data[: 1 * MiB]
            assert gate.waiting == 1
            gate.release()
            rest = await wire.reader.readexactly(len(data) - len(begun))
        assert begun + rest == data
        assert await leading == data
        await second.landed(digest)
        assert await second.metric('registry_mirror_shared_fills_total{outcome="peer"}') == 1
        assert sent(fake, digest) == len(data)


async def test_shared_blob_is_not_fetched_far_ahead_of_those_that_follow(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a mirror that follows takes nothing, the upstream sends no more than the window beyond that."""
    monkeypatch.setattr(lead_window, "STALL_SECONDS", math.inf)
    monkeypatch.setattr(lead_window, "FLOOR", 0)
    data, settings = os.urandom(1024) * (40 * 1024), with_peers(settings)
    digest = fake.add_blob("library/x", data)
    gate = fake.hold(digest, after=2 * MiB)
    async with (
        sharing(fake, tmp_path / "a", settings, parallel=4) as first,
        await Wire.open(first.address) as client,
    ):
        shared = first.service.shared
        assert shared is not None
        client.send("GET", f"{X}/blobs/{digest}")
        await gate.reached.wait()
        header, _ = PeerProof(PEERS["peers_secret"]).request(subject(str(digest), 0), time.time())
        async with await Wire.open(shared.tier.address.removeprefix("http://")) as peer:
            headers = (f"{REQUEST_HEADER}: {header}", "Range: bytes=0-")
            peer.send("GET", f"/v2/peers/blobs/{digest}", headers)
            assert (await peer.head()).status == 206
            gate.release()
            assert (await client.head()).status == 200
            begun = await client.reader.readexactly(lead_window.LEAST_WINDOW)
            window = shared.leading.window(digest)
            assert window is not None
            for _ in range(20):
                fetched = sent(fake, digest)
                assert fetched <= window.best + lead_window.LEAST_WINDOW + MiB
                await asyncio.sleep(0.01)
            assert await peer.reader.readexactly(len(data)) == data
        assert begun + await client.reader.readexactly(len(data) - len(begun)) == data
        assert sent(fake, digest) == len(data)


def sent(fake: FakeRegistry, digest: Digest) -> int:
    """Return how many bytes of a blob the upstream has sent."""
    return sum(each.sent for each in fake.log if str(digest) in each.path and each.method == "GET")


async def test_shared_blob_goes_on_when_its_leader_is_killed(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings
) -> None:
    """The lease lapses, the mirror that followed has the next one, and goes on from what it has."""
    data, settings = blob() + blob(), with_peers(settings)
    digest = fake.add_blob("library/x", data)
    gate = fake.hold(digest, after=len(data) - 3 * MiB)
    async with (
        leader(fake, tmp_path / "a", settings) as (process, address),
        sharing(fake, tmp_path / "b", settings) as second,
        await Wire.open(address) as first,
    ):
        first.send("GET", f"{X}/blobs/{digest}")
        await gate.reached.wait()
        async with await Wire.open(second.address) as wire:
            wire.send("GET", f"{X}/blobs/{digest}")
            assert (await wire.head()).status == 200
            begun = await wire.reader.readexactly(len(data) // 2)
            os.killpg(process.pid, signal.SIGKILL)  # with its worker
            assert begun + await wire.reader.readexactly(len(data) - len(begun)) == data
        await second.landed(digest)
        assert await second.metric('registry_mirror_shared_fills_total{outcome="upstream"}') == 1
        await written(settings, digest)
    assert sent(fake, digest) <= len(data) + MiB


async def test_shared_tier_ends_with_its_status_and_its_last_lines(
    fake: FakeRegistry, tmp_path: Path, settings: SharedSettings
) -> None:
    """Threads of the library for the object store are there still: no process is aborted, no line is lost."""
    data, settings = blob(), with_peers(settings)
    digest = fake.add_blob("library/x", data)
    async with leader(fake, tmp_path / "a", settings) as (process, address):
        assert (await get(address, f"{X}/blobs/{digest}")).body == data
        await written(settings, digest)
        process.terminate()
        assert await process.wait() == 0
    text = await asyncio.to_thread((tmp_path / "a.log").read_text)
    assert "stopping" in text
    assert f'"digest": "{digest}"' in text  # the line of the pull, which a thread of the worker writes
    for trouble in ("Traceback", "worker died, starting", "task failed", "panicked"):
        assert trouble not in text


@asynccontextmanager
async def leader(
    fake: FakeRegistry,
    cache: Path,
    settings: SharedSettings,
    fill: str = 'chunk_size = "64KiB"\nparallel = 1',
    level: str = "info",
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A mirror in a process of its own, with the tier in use, and its address. A log is beside it."""
    secrets = {
        "secret_key": SECRET_KEY,
        "coordinator_password": PASSWORD,
        "peers_secret": PEERS["peers_secret"],
    }
    plain = ("url", "endpoint", "access_key", "coordinator", "peers_listen", "timeout")
    shared = {**{name: getattr(settings, name) for name in plain}, **secrets}
    port = free_port()
    file, logged = cache.with_suffix(".toml"), cache.with_suffix(".log")
    lines = [
        f'[server]\nlisten = ["127.0.0.1:{port}"]\n[cache]\ndir = "{cache}"\nmin_free = 0',
        f'[log]\nlevel = "{level}"\n[fill]\n{fill}\n[shared]',
        *(f"{name} = {json.dumps(value)}" for name, value in shared.items()),
        f'[[upstream]]\nname = "docker.io"\nurl = "{fake.url}"',
    ]
    await asyncio.to_thread(file.write_text, "\n".join(lines))
    command = (sys.executable, "-m", "mirror", "serve", "--config", str(file))
    log = await asyncio.to_thread(logged.open, "wb")  # no pipe: a mirror would wait for who does not read it
    process = await asyncio.create_subprocess_exec(*command, stderr=log, start_new_session=True)
    await asyncio.to_thread(log.close)
    try:
        while True:
            text = await asyncio.to_thread(logged.read_text)
            if "shared tier in use" in text and "listener for other mirrors" in text:
                break
            assert process.returncode is None, text
            await asyncio.sleep(0.02)
        yield process, f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_shared_token_revoked_at_one_mirror_is_refused_by_all(
    fake: FakeRegistry,
    tmp_path: Path,
    settings: SharedSettings,
    coordinator: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The coordinator is flushed right after; a mirror that was down has it when it is back."""
    monkeypatch.setattr("mirror.transfer.shared.upkeep.TICK_SECONDS", 0.05)
    settings = with_peers(settings)
    fake.add_image("library/x", "1", [b"layer"])
    secret = new_secret()

    @asynccontextmanager
    async def mirror(name: str) -> AsyncIterator[tuple[Running, TokenStore]]:
        access: dict[str, object] = {
            "access": {"default": "deny"},
            "rules": [{"name": "ci", "effect": "allow", "identities": ["token:ci"]}],
        }
        make = partial(configured, tmp_path / name, {"docker.io": fake.url}, shared=settings, **access)
        async with serving(await asyncio.to_thread(make)) as running:
            yield running, tokens_of(running.service.folder)

    async def status(running: Running) -> int:
        async with await Wire.open(running.address) as wire:
            wire.send("GET", f"{X}/manifests/1", (f"Authorization: Bearer {secret}",))
            return (await wire.reply()).status

    async def refused(running: Running) -> None:
        while await status(running) == 200:  # noqa: ASYNC110  # of a background task
            await asyncio.sleep(0.02)
        assert await status(running) in (401, 403)

    entry = TokenEntry("ci", digest_of(secret), 1.0)
    async with mirror("c") as (_, tokens):
        await asyncio.to_thread(tokens.add, entry)
    async with mirror("a") as (first, here), mirror("b") as (second, there):
        for tokens in (here, there):
            await asyncio.to_thread(tokens.add, entry)
        assert [await status(first), await status(second)] == [200, 200]
        assert await asyncio.to_thread(here.remove, "ci")
        assert await status(first) != 200
        await flush(coordinator)
        await refused(second)
        assert await asyncio.to_thread(there.all) == []
    async with mirror("c") as (third, _):
        await refused(third)
    async with bucket(settings) as objects:
        text = str([each.key async for each in objects.names("revoked")])
        assert len(text) > 2
        assert entry.sha256 not in text
