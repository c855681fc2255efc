"""Replication: what is pushed comes to the other registry, whatever happens on the way, and once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace
from structlog.testing import capture_logs

from mirror.config.hosting.replicas import ReplicaSettings
from mirror.hosted.registry import HostedRegistry
from mirror.hosted.replication.replicator import FIRST_PAUSE, MOST_REFUSALS, SETTLING, Replicator
from mirror.hosted.replication.target import ReplicaTarget
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.util.tasks import Tasks
from tests.contract.hosting import hosting
from tests.fakes.site import Seen, Site
from tests.hosting import APP, descriptor, hosted_of, manifest_of, office, push_blob, push_image
from tests.running import Running, serving


class Scene:
    """A mirror, and one that it replicates to. `now`: of the replicator's clock."""

    def __init__(self, mirror: Running, other: Running, settings: ReplicaSettings) -> None:
        self.now = 1_700_000_000.0
        self.registry = hosted_of(mirror)
        self.other = hosted_of(other)
        self.config = replace(mirror.config.hosted[0], mirror_to=(settings,))
        self.tasks = Tasks()
        self.metrics = Metrics()
        self.replicator = self.another()

    def another(self) -> Replicator:
        """A replicator of another process on the same folder."""
        self.registry.on_change.clear()
        self.registry.before_change.clear()
        return Replicator(self.registry, [self.config], self.tasks, self.metrics, lambda: self.now)

    @property
    def target(self) -> ReplicaTarget:
        return self.replicator.targets[0]

    async def send(self, wait: float = SETTLING) -> None:
        while self.tasks.running:  # noqa: ASYNC110  # each of them ends
            await asyncio.sleep(0)
        self.now += wait
        await self.replicator.send_due()

    async def waiting(self) -> int:
        return await self.registry.store.read(self.target.queue.count)

    async def there(self, tag: str, repository: Repository = APP) -> str | None:
        entry = await self.other.store.tag(repository, Tag(tag))
        return None if entry is None else entry.digest


@asynccontextmanager
async def scene(tmp_path: Path, **options: Any) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(
            serving(await hosting(tmp_path / "other", **options.pop("there", {})))
        )
        mirror = await stack.enter_async_context(office(tmp_path / "cache"))
        values = {"url": f"http://{other.address}", "prefix": "office", "attempts": 1, **options}
        settings = await asyncio.to_thread(ReplicaSettings.model_validate, values)
        found = Scene(mirror, other, settings)
        yield found
        await found.tasks.close()


def damage(descriptor: int, data: bytes) -> None:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    path.chmod(0o600)
    path.write_bytes(data)


async def sign(registry: HostedRegistry, subject: Digest) -> Digest:
    await push_blob(registry, APP, b"signature")
    signed = manifest_of([b"signature"], subject=descriptor(subject, 1, OCI_MANIFEST))
    return (await registry.put_manifest(APP, Digest.of(signed), OCI_MANIFEST, signed)).digest


async def test_push_and_signature_come_to_the_other_registry(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        digest = await push_image(found.registry, APP, "1")
        signed = await sign(found.registry, digest)
        await found.send()
        assert await found.there("1") == str(digest)
        listed = await found.other.content.referrers(APP, digest, ())
        assert str(signed).encode() in listed.data
        assert await found.waiting() == 0
        assert await found.there("1", Repository("office", "team/other")) is None


async def test_queue_survives_a_crash_and_repeats_harm_nothing(tmp_path: Path) -> None:
    """The next process carries out entries that a dead one had begun, and looks up the tag then."""
    async with scene(tmp_path) as found:
        await push_image(found.registry, APP, "1", [b"old"])
        await found.send(0)
        (entry,) = await found.registry.store.read(found.target.queue.entries)
        await found.registry.store.read(found.target.queue.begin, entry)
        found.replicator = found.another()
        digest = await push_image(found.registry, APP, "1", [b"new"])
        await found.send()
        assert await found.there("1") == str(digest)
        assert await found.waiting() == 0


async def test_change_is_queued_before_it_is_done(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        found.registry.on_change.clear()  # as if the process had died behind the push
        digest = await push_image(found.registry, APP, "1")
        await found.send()
        assert await found.there("1") == str(digest)


async def test_target_that_is_down_is_left_alone_for_longer_and_longer(tmp_path: Path) -> None:
    async with scene(tmp_path, url="http://127.0.0.1:9") as found:
        for name in ("1", "2"):
            await push_image(found.registry, APP, name)
        with capture_logs() as lines:
            await found.send()
            await found.send(0)
            await found.send(FIRST_PAUSE)
            await found.send(FIRST_PAUSE)
            assert await found.waiting() == 2
        entries = await found.registry.store.read(found.target.queue.entries)
        assert sorted(each.attempts for each in entries) in ([0, 2], [1, 1])
        assert [each["event"] for each in lines].count("replication rests") == 1


async def test_refusals_stop_a_run_and_others_are_tried_before(tmp_path: Path) -> None:
    """A target that refuses everything is asked a few times, and not once for each of many images."""
    async with scene(tmp_path, there={"rules": []}) as found:
        for number in range(MOST_REFUSALS + 3):
            await push_image(found.registry, APP, str(number), [str(number).encode()])
        await found.send()
        entries = await found.registry.store.read(found.target.queue.entries)
        assert sum(each.attempts for each in entries) == MOST_REFUSALS
        assert any("denied" in each.reason.lower() or "answered" in each.reason for each in entries)


async def test_deletions_go_along_only_if_asked(tmp_path: Path) -> None:
    for deletes in (False, True):
        async with scene(tmp_path / str(deletes), deletes=deletes) as found:
            digest = await push_image(found.registry, APP, "1")
            await found.send()
            await found.registry.delete_tag(APP, Tag("1"))
            await found.send()
            assert await found.there("1") == (None if deletes else str(digest))
            assert await found.waiting() == 0


async def test_tag_that_is_gone_there_is_not_deleted(tmp_path: Path) -> None:
    """Distribution answers 400 to the deletion of a tag, also of one that it does not have."""
    methods: list[str] = []

    async def without_tags(request: web.BaseRequest, _: Seen) -> web.StreamResponse:
        methods.append(request.method)
        return web.Response(status=404 if request.method == "HEAD" else 400)

    async with Site(without_tags) as site, scene(tmp_path, url=site.url, deletes=True) as found:
        await push_image(found.registry, APP, "1")
        await found.registry.delete_tag(APP, Tag("1"))
        await found.send()
        assert methods == ["HEAD"]
        assert await found.waiting() == 0
        gauge = found.metrics.replication_waiting.labels("office", found.target.url)
        assert gauge._value.get() == 0


async def test_replica_is_not_passed_on(tmp_path: Path) -> None:
    """The other mirror replicates to a third place, and would send everything back."""
    async with scene(tmp_path) as found:
        passed: list[object] = []
        back = ReplicaSettings.model_validate({"url": "http://127.0.0.1:9"})
        config = replace(found.config, mirror_to=(back,))
        other = Replicator(found.other, [config], found.tasks, Metrics(), lambda: found.now)
        await push_image(found.registry, APP, "1")
        await found.send()
        assert await found.other.store.read(other.targets[0].queue.count) == 0
        await push_image(found.other, APP, "2", [b"of its own"])
        while found.tasks.running:  # noqa: ASYNC110  # each of them ends
            await asyncio.sleep(0)
        assert await found.other.store.read(other.targets[0].queue.count) == 1
        assert not passed


@pytest.mark.parametrize("patterns", [["team/*"], ["app"]])
async def test_only_repositories_that_match_are_sent(tmp_path: Path, patterns: list[str]) -> None:
    async with scene(tmp_path, repositories=patterns) as found:
        await push_image(found.registry, APP, "1")
        await found.send()
        assert (await found.there("1") is None) == (patterns == ["team/*"])


async def test_image_on_which_the_target_breaks_down_keeps_no_other_back(tmp_path: Path) -> None:
    came: list[str] = []

    async def answered(request: web.BaseRequest, _: Seen) -> web.StreamResponse:
        await request.read()
        if request.method == "HEAD":
            return web.Response(status=404)
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": f"{request.path}1"})
        reference = request.path.rpartition("/")[2]
        if "/manifests/" in request.path and reference != "bad":
            came.append(reference)
        return web.Response(status=500 if reference == "bad" else 201)

    async with Site(answered) as site, scene(tmp_path, url=site.url) as found:
        await push_image(found.registry, APP, "bad")
        await found.send()
        await push_image(found.registry, APP, "good", [b"other"])
        await found.send(FIRST_PAUSE)
        assert came == ["good"]
        assert await found.waiting() == 1


async def test_damaged_blob_keeps_no_other_image_back(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await push_image(found.registry, APP, "bad", [b"layer" * 100_000])
        blob = await found.registry.store.open_blob(APP, Digest.of(b"layer" * 100_000))
        assert blob.blob is not None
        await asyncio.to_thread(damage, blob.blob.file.fileno(), b"other" * 100_000)
        blob.close()
        good = await push_image(found.registry, APP, "good", [b"other"])
        await found.send()
        assert await found.there("good") == str(good)
        (entry,) = await found.registry.store.read(found.target.queue.entries)
        assert "other bytes" in entry.reason


async def test_refused_push_deletes_nothing_at_the_target(tmp_path: Path) -> None:
    """A client that may push, and not delete, would delete there what only the target has."""
    async with scene(tmp_path, deletes=True) as found:
        digest = await push_image(found.other, APP, "old")
        refused = manifest_of([b"not pushed"])
        with pytest.raises(RegistryError, match="push it first"):
            await found.registry.put_manifest(APP, Tag("old"), OCI_MANIFEST, refused)
        await found.send()
        assert await found.there("old") == str(digest)
        assert await found.waiting() == 0
