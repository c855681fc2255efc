"""Links: a name in a manifest opens nothing that came with an account, and access that was revoked ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mirror.config.schema import Config
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import Index
from tests.fakes.access import TokenAuth
from tests.fakes.content import FakeImage, image_index
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, LARGE_DATA, NEVER, Running, configured, serving
from tests.wire import Reply, Wire, get, head

SMALL = b"a private layer"
BIG = LARGE_DATA
INTERVAL = 1000.0
SECRET, OPEN = "org/secret", "library/open"
START = 1_700_000_000.0


@dataclass
class Scene:
    """A private image at quay.io, read with an account; a public repository at docker.io that names it."""

    hub: FakeRegistry
    quay: FakeRegistry
    folder: Path
    image: FakeImage
    now: float = START
    asked: int = 0
    life: AsyncExitStack = field(default_factory=AsyncExitStack)
    mirror: Running | None = None

    def config(self, *, account: bool = True, **tags: Any) -> Config:
        login = {"username": "u", "password": "p"} if account else {}
        return configured(
            self.folder,
            {"docker.io": self.hub.url, "quay.io": self.quay.url},
            tags={"fresh": 60, "fallback_after": NEVER, "missing": 0, **tags},
            upstream_of={"quay.io": {**login, "recheck_access": INTERVAL}},
            rules=[{"name": "this machine", "effect": "allow", "networks": ["127.0.0.1"]}],
        )

    async def start(self, *, account: bool = True) -> None:
        config = self.config(account=account)
        self.mirror = await self.life.enter_async_context(serving(config, lambda: self.now))

    async def restart(self, *, account: bool = True) -> None:
        await self.life.aclose()
        await self.start(account=account)

    @property
    def address(self) -> str:
        assert self.mirror is not None
        return self.mirror.address

    async def get(self, repository: str, kind: str, what: object, *headers: str) -> Reply:
        """GET with a head that no request had before, past the response cache."""
        self.asked += 1
        return await get(self.address, f"/v2/{repository}/{kind}/{what}", f"X-Asked: {self.asked}", *headers)

    async def head(self, repository: str, kind: str, what: object) -> Reply:
        self.asked += 1
        return await head(self.address, f"/v2/{repository}/{kind}/{what}", f"X-Asked: {self.asked}")

    async def landed(self) -> None:
        assert self.mirror is not None
        for digest in self.image.blobs:
            await self.mirror.landed(digest)

    async def pull(self, repository: str = f"quay.io/{SECRET}") -> list[int]:
        """Pull the image by digest; return the statuses: manifest, config, layers."""
        found = [(await self.get(repository, "manifests", self.image.manifest)).status]
        for digest in self.image.blobs:
            found.append((await self.get(repository, "blobs", digest)).status)
        await self.landed()
        return found

    async def name(self) -> None:
        """Have the public repository name all of the private image: by a manifest and by an index."""
        config, *layers = self.image.blobs_data
        naming = self.hub.add_image(OPEN, "naming", [config, *layers])
        for digest in self.image.blobs:
            del self.hub.repository(OPEN).blobs[str(digest)]
        index = self.hub.add_manifest(OPEN, image_index([self.image.manifest_data]), OCI_INDEX)
        for digest in (naming.manifest, index):
            assert (await self.get(OPEN, "manifests", digest)).status == 200

    def asked_hub(self, method: str = "HEAD") -> int:
        return sum(self.hub.requests(method, each) for each in (self.image.manifest, *self.image.blobs))


@asynccontextmanager
async def scene_in(folder: Path) -> AsyncIterator[Scene]:
    async with FakeRegistry() as hub, FakeRegistry() as quay:
        image = quay.add_image(SECRET, "t", [SMALL, BIG])
        quay.auth = TokenAuth(user="u", password="p", private={SECRET})
        scene = Scene(hub, quay, folder / "cache", image)
        await scene.start()
        try:
            yield scene
        finally:
            await scene.life.aclose()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_in(tmp_path) as scene:
        yield scene


def targets(image: FakeImage) -> list[tuple[str, Digest]]:
    return [("manifests", image.manifest), *(("blobs", each) for each in image.blobs)]


async def assert_closed(scene: Scene, repository: str = OPEN) -> None:
    """Nothing of the private image comes through `repository`, by no kind of request."""
    for kind, digest in targets(scene.image):
        for headers in ([], ["Range: bytes=0-3"], [f'If-None-Match: "{digest}"'], ["If-None-Match: *"]):
            reply = await scene.get(repository, kind, digest, *headers)
            assert (reply.status, kind, headers) == (404, kind, headers)
        assert (await scene.head(repository, kind, digest)).status == 404
    assert (await scene.get(repository, "blobs", scene.image.manifest)).status == 404


async def test_name_opens_nothing_that_came_with_an_account(scene: Scene) -> None:
    """Layers, config and manifest of a private image, named by a repository that does not have them."""
    assert await scene.pull() == [200] * 4
    await scene.name()
    await assert_closed(scene)


async def test_name_that_came_first_opens_nothing_either(scene: Scene) -> None:
    """The public repository names the digests before the private image is pulled."""
    await scene.name()
    assert await scene.pull() == [200] * 4
    await assert_closed(scene)


async def test_name_opens_nothing_after_a_restart(scene: Scene) -> None:
    """Names and confirmations are on the disk; the confirmed repository still gets all of it unasked."""
    await scene.pull()
    await scene.name()
    await scene.restart()
    asked = len(scene.quay.log)
    assert await scene.pull() == [200] * 4
    assert len(scene.quay.log) == asked
    await assert_closed(scene)


async def test_name_opens_nothing_without_the_account(scene: Scene) -> None:
    """The account has left the configuration since: what came with it stays private."""
    await scene.pull()
    await scene.name()
    await scene.restart(account=False)
    await assert_closed(scene)


async def test_name_opens_nothing_during_an_outage(scene: Scene) -> None:
    """An upstream that gives no answer has not confirmed anything."""
    await scene.pull()
    await scene.name()
    scene.hub.fault(Fault(status=503), times=10_000)
    for kind, digest in targets(scene.image):
        assert (await scene.get(OPEN, kind, digest)).status != 200
        assert (await scene.head(OPEN, kind, digest)).status != 200


async def test_name_is_confirmed_once(scene: Scene) -> None:
    """A base image that both have: one HEAD for each digest, remembered beyond a restart, no byte again."""
    await scene.pull()
    await scene.name()
    scene.hub.add_manifest(OPEN, scene.image.manifest_data)
    for data in scene.image.blobs_data:
        scene.hub.add_blob(OPEN, data)
    for _ in range(2):
        assert await scene.pull(OPEN) == [200] * 4
    assert (scene.asked_hub("HEAD"), scene.asked_hub("GET")) == (4, 0)
    await scene.restart()
    scene.now += 100 * INTERVAL
    assert await scene.pull(OPEN) == [200] * 4
    assert (scene.asked_hub("HEAD"), scene.asked_hub("GET")) == (4, 0)


async def test_name_is_enough_for_public_content(scene: Scene) -> None:
    """Content that came without an account: no request for another repository that names it."""
    image = scene.image
    scene.hub.add_image("library/base", "t", [SMALL, BIG])
    for data in image.blobs_data:
        scene.hub.add_blob("library/base", data)
        assert (await scene.get("library/base", "blobs", Digest.of(data))).status == 200
    await scene.landed()
    await scene.name()
    for digest in image.blobs:
        assert (await scene.get(OPEN, "blobs", digest)).status == 200
        assert (await scene.head(OPEN, "blobs", digest)).status == 200
    assert scene.hub.requests("HEAD") == 0


async def test_name_joins_no_fill_with_an_account(scene: Scene) -> None:
    """The private layer is being downloaded: who only names it does not follow."""
    await scene.name()
    layer = scene.image.layers[1]
    await scene.get(f"quay.io/{SECRET}", "manifests", scene.image.manifest)  # with the token
    gate = scene.quay.hold(layer, after=LARGE // 2)
    first = asyncio.ensure_future(scene.get(f"quay.io/{SECRET}", "blobs", layer))
    await gate.reached.wait()
    assert (await scene.get(OPEN, "blobs", layer)).status == 404
    assert (await scene.head(OPEN, "blobs", layer)).status == 404
    gate.release()
    assert (await first).body == BIG


async def test_name_follows_no_fill_of_another_worker(scene: Scene) -> None:
    """A download in another process on the same folder is not followed either."""
    await scene.name()
    layer = scene.image.layers[1]
    async with serving(scene.config(), lambda: scene.now) as other:
        await get(other.address, f"/v2/quay.io/{SECRET}/manifests/t")  # with the token
        gate = scene.quay.hold(layer, after=LARGE // 2)
        first = asyncio.ensure_future(get(other.address, f"/v2/quay.io/{SECRET}/blobs/{layer}"))
        await gate.reached.wait()
        assert (await scene.get(OPEN, "blobs", layer)).status == 404
        gate.release()
        assert (await first).body == BIG


async def leave_complete_partial(scene: Scene, *, public: bool = False) -> Digest:
    """Leave all bytes of the large layer as a fill does that is killed before its last step."""
    assert scene.mirror is not None
    store, layer = scene.mirror.service._store, scene.image.layers[1]
    partial, _ = await store.transfers.lock_partial(Repository("quay.io", SECRET), layer, public=public)
    assert partial is not None
    writer = await store.transfers.open_growing_file(partial, LARGE, 64 * 1024, public=public)
    await writer.write(0, [BIG])
    writer.file.close()
    await store.transfers.release_partial(partial)
    return layer


@pytest.mark.parametrize("account", [True, False])
async def test_name_does_not_complete_a_private_download(scene: Scene, account: bool) -> None:
    """All bytes are here, but their fill was killed: without an answer the name alone does not open them.

    Nor does it once the account has left the configuration.
    """
    await scene.name()
    layer = await leave_complete_partial(scene)
    await scene.restart(account=account)
    scene.hub.fault(Fault(status=503), times=10_000)
    assert (await scene.get(OPEN, "blobs", layer)).status != 200


async def confirmed_layer(scene: Scene) -> Digest:
    """Return the large layer: confirmed by a HEAD, complete in a partial of a fill that was killed."""
    layer = scene.image.layers[1]
    assert (await scene.head(f"quay.io/{SECRET}", "blobs", layer)).status == 200
    return await leave_complete_partial(scene)


@pytest.mark.parametrize("age", [0, INTERVAL])
async def test_old_link_completes_a_download_as_stale_during_an_outage(scene: Scene, age: float) -> None:
    """The answer is labelled, though the blob was never stored."""
    layer = await confirmed_layer(scene)
    scene.now += age
    scene.quay.fault(Fault(status=503), times=10_000)
    reply = await scene.get(f"quay.io/{SECRET}", "blobs", layer)
    assert (reply.status, reply.body) == (200, BIG)
    assert reply.headers.get("warning", "")[:3] == ("110" if age else "")


async def test_old_link_follows_another_workers_fill_as_stale_during_an_outage(scene: Scene) -> None:
    """The other worker has its connection from before the outage."""
    layer = scene.image.layers[1]
    assert (await scene.head(f"quay.io/{SECRET}", "blobs", layer)).status == 200
    async with serving(scene.config(), lambda: scene.now) as other:
        path = f"/v2/quay.io/{SECRET}/blobs/{layer}"
        assert (await head(other.address, path)).status == 200  # with the token
        gate = scene.quay.hold(layer, after=LARGE // 2)
        first = asyncio.ensure_future(get(other.address, path))
        await gate.reached.wait()
        scene.now += INTERVAL
        scene.quay.fault(Fault(status=503), times=10_000)
        async with await Wire.open(scene.address) as wire:
            wire.send("GET", path)
            assert (await wire.head()).headers.get("warning", "")[:3] == "110"
            gate.release()
            assert (await first).body == BIG


async def test_refused_download_withdraws_the_link(scene: Scene) -> None:
    """A refusal counts in an outage after it, whatever was asked when the upstream refused."""
    layer = await confirmed_layer(scene)
    assert scene.quay.auth is not None
    scene.quay.auth.denied.add(SECRET)
    assert (await scene.get(f"quay.io/{SECRET}", "blobs", layer)).status == 404
    scene.quay.fault(Fault(status=503), times=10_000)
    assert (await scene.get(f"quay.io/{SECRET}", "blobs", layer)).status != 200


async def assert_all(scene: Scene, status: int, warning: str | None = None) -> None:
    """All of the private image, asked for by GET, HEAD and range, has this status."""
    for kind, digest in targets(scene.image):
        for reply in (
            await scene.get(f"quay.io/{SECRET}", kind, digest),
            await scene.head(f"quay.io/{SECRET}", kind, digest),
            await scene.get(f"quay.io/{SECRET}", kind, digest, "Range: bytes=0-3"),
        ):
            ranged = status == 200 and reply.status == 206
            assert reply.status == status or ranged, (kind, digest)
            assert reply.headers.get("warning", "")[:3] == (warning or ""), (kind, digest)


async def test_revoked_access_ends(scene: Scene) -> None:
    """Unasked for the interval; then the refusal counts, for manifests and blobs, in memory and on disk."""
    await scene.pull()
    assert scene.quay.auth is not None
    scene.quay.auth.denied.add(SECRET)
    scene.now += INTERVAL - 2
    asked = len(scene.quay.log)
    await assert_all(scene, 200)
    assert len(scene.quay.log) == asked
    scene.now += 2
    await assert_all(scene, 404)
    await scene.restart()
    await assert_all(scene, 404)


async def test_revoked_access_ends_after_a_restart(scene: Scene) -> None:
    """The moment of the last confirmation is on the disk."""
    await scene.pull()
    assert scene.quay.auth is not None
    scene.quay.auth.denied.add(SECRET)
    await scene.restart()
    await assert_all(scene, 200)
    scene.now += INTERVAL
    await scene.restart()
    await assert_all(scene, 404)


@pytest.mark.parametrize("how", ["removed", "account"])
async def test_access_ends_with_the_content_and_with_the_account(scene: Scene, how: str) -> None:
    """The image was removed upstream, or its account from the configuration: the next answer is a refusal."""
    await scene.pull()
    scene.now += INTERVAL
    if how == "removed":
        scene.quay.repository(SECRET).blobs.clear()
        scene.quay.repository(SECRET).manifests.clear()
    else:
        await scene.restart(account=False)
    await assert_all(scene, 404)


async def test_access_is_confirmed_again_once_for_an_interval(scene: Scene) -> None:
    """A HEAD for each digest and no GET, then nothing for the next interval."""
    await scene.pull()
    scene.now += INTERVAL
    gets = scene.quay.requests("GET", "/v2/")
    await assert_all(scene, 200)
    heads = {each: scene.quay.requests("HEAD", each) for each in (scene.image.manifest, *scene.image.blobs)}
    assert set(heads.values()) == {1}
    await assert_all(scene, 200)
    assert scene.quay.requests("GET", "/v2/") == gets
    assert scene.quay.requests("HEAD") == len(heads)


@pytest.mark.parametrize("status", [503, 429])
async def test_access_is_stale_during_an_outage(scene: Scene, status: int) -> None:
    """Only the registry's own word takes access away: until it answers, answers say that they are stale."""
    await scene.pull()
    scene.now += INTERVAL
    scene.quay.fault(Fault(status=status), times=10_000)
    await assert_all(scene, 200, "110")
    scene.quay._planned.clear()
    await scene.restart()
    await assert_all(scene, 200)


async def test_access_without_an_account_is_never_checked_again(scene: Scene) -> None:
    """Public content is a hit for good, however old."""
    image = scene.hub.add_image(OPEN, "t", [b"public", BIG])
    for kind, digest in targets(image):
        assert (await scene.get(OPEN, kind, digest)).status == 200
    assert scene.mirror is not None
    for digest in image.blobs:
        await scene.mirror.landed(digest)
    scene.now += 1000 * INTERVAL
    asked = len(scene.hub.log)
    for kind, digest in targets(image):
        assert (await scene.get(OPEN, kind, digest)).status == 200
        assert (await scene.head(OPEN, kind, digest)).status == 200
    assert len(scene.hub.log) == asked


async def test_response_cache_ends_with_the_access(scene: Scene) -> None:
    """A repeated request is answered unparsed no longer than the access is believed, or until a refusal."""
    await scene.pull()
    assert scene.quay.auth is not None
    path = f"/v2/quay.io/{SECRET}/manifests/{scene.image.manifest}"
    for _ in range(3):
        assert (await get(scene.address, path)).status == 200
    assert scene.mirror is not None
    scene.now += INTERVAL - 10
    repository = Repository("quay.io", SECRET)
    found = await scene.mirror.service.cache.origin(repository).get_manifest(repository, scene.image.manifest)
    assert 0 < found.ttl <= 10
    config = await scene.mirror.service.cache.origin(repository).get_blob(repository, scene.image.config)
    assert 0 < config.ttl <= 10
    scene.quay.auth.denied.add(SECRET)
    scene.now += 10
    assert (await scene.get(f"quay.io/{SECRET}", "blobs", scene.image.config)).status == 404
    assert (await get(scene.address, path)).status == 404


async def test_refusal_counts_in_every_worker(scene: Scene) -> None:
    """One worker is told, and the others forget what they have in memory."""
    path = f"/v2/quay.io/{SECRET}/blobs/{scene.image.config}"
    late = START
    async with serving(scene.config(), lambda: late) as other:
        await scene.pull()
        for _ in range(3):
            assert (await get(other.address, path)).status == 200
        assert scene.quay.auth is not None
        scene.quay.auth.denied.add(SECRET)
        scene.now += INTERVAL
        assert (await scene.get(f"quay.io/{SECRET}", "blobs", scene.image.config)).status == 404
        assert (await get(other.address, path)).status == 404


async def test_confirmation_counts_in_every_worker(scene: Scene) -> None:
    """One worker has asked: another one reads that, and asks nothing."""
    await scene.pull()
    async with serving(scene.config(), lambda: scene.now) as other:
        path = f"/v2/quay.io/{SECRET}/blobs/{scene.image.config}"
        assert (await get(other.address, path)).status == 200
        scene.now += INTERVAL
        assert (await scene.get(f"quay.io/{SECRET}", "blobs", scene.image.config)).status == 200
        asked = len(scene.quay.log)
        assert (await get(other.address, path)).status == 200
        assert len(scene.quay.log) == asked


@pytest.mark.parametrize(
    "tags", [{"fresh": "forever"}, {"immutable": ["t"]}, {"stale_while_revalidate": "forever"}]
)
async def test_revoked_access_ends_for_tags_that_are_not_revalidated(
    tmp_path: Path, tags: dict[str, Any]
) -> None:
    """However long a tag is believed, it is asked about again when the access is."""
    async with scene_in(tmp_path) as scene:
        await scene.life.aclose()
        config = scene.config(**tags)
        scene.mirror = await scene.life.enter_async_context(serving(config, lambda: scene.now))
        for method in (scene.get, scene.head):
            assert (await method(f"quay.io/{SECRET}", "manifests", "t")).status == 200
        assert scene.quay.auth is not None
        scene.quay.auth.denied.add(SECRET)
        scene.now += INTERVAL + 1
        for method in (scene.get, scene.head):
            assert (await method(f"quay.io/{SECRET}", "manifests", "t")).status == 404


def make_old(folder: Path) -> None:
    """Rewrite the index and the entries of blobs as an earlier version has written them."""
    index = Index(folder / "books")
    links = "SELECT key, value FROM Cache WHERE key >= 'link:' AND key < 'link;'"
    for key, value in index.database.query(links):
        link = json.loads(value)
        old = json.dumps({"media_type": link["media_type"], "size": link["size"]})
        index.database.query("UPDATE Cache SET value = ? WHERE key = ?", (old, key))
    index.close()
    blobs = Index(folder / "blobs")
    blobs.database.query("UPDATE Cache SET tag = CAST(size AS TEXT)")
    blobs.close()


async def older(scene: Scene, *, account: bool = True) -> None:
    """Go on with the cache folder of an earlier version."""
    await scene.life.aclose()
    await asyncio.to_thread(make_old, scene.folder)
    await scene.start(account=account)


async def test_old_links_are_asked_about_once(scene: Scene) -> None:
    """Earlier versions did not tell names from confirmations: the upstream does, with the first request."""
    await scene.pull()
    await scene.name()
    await older(scene)
    await assert_closed(scene)
    await assert_all(scene, 200)
    asked = len(scene.quay.log)
    await assert_all(scene, 200)
    assert len(scene.quay.log) == asked


async def test_old_links_are_stale_during_an_outage(scene: Scene) -> None:
    """A cache that was used offline goes on to be; its answers say that nobody has confirmed them."""
    await scene.pull()
    await older(scene)
    scene.quay.fault(Fault(status=503), times=10_000)
    await assert_all(scene, 200, "110")


async def test_old_links_without_accounts_are_believed(scene: Scene) -> None:
    """Nothing is private where no account is configured: no request, no warning."""
    image = scene.hub.add_image(OPEN, "t", [SMALL, BIG])
    for kind, digest in targets(image):
        assert (await scene.get(OPEN, kind, digest)).status == 200
    assert scene.mirror is not None
    for digest in image.blobs:
        await scene.mirror.landed(digest)
    await older(scene, account=False)
    asked = len(scene.hub.log)
    for kind, digest in targets(image):
        reply = await scene.get(OPEN, kind, digest)
        assert (reply.status, "warning" in reply.headers) == (200, False)
    assert len(scene.hub.log) == asked


async def test_new_names_do_not_open_old_content(scene: Scene) -> None:
    """Content of an earlier version may have come with an account."""
    await scene.pull()
    await older(scene)
    await scene.name()
    await assert_closed(scene)


async def test_tag_of_a_private_repository_is_confirmed_with_its_image(scene: Scene) -> None:
    """A pull by tag within the interval confirms the manifest: no second HEAD for it."""
    assert (await scene.get(f"quay.io/{SECRET}", "manifests", Tag("t"))).status == 200
    scene.now += INTERVAL
    assert (await scene.get(f"quay.io/{SECRET}", "manifests", Tag("t"))).status == 200
    assert scene.quay.requests("HEAD") == 1


async def test_head_of_a_manifest_that_is_only_named_asks_the_upstream(scene: Scene) -> None:
    """Type and size that an index claims of an image are no word of the registry."""
    await scene.name()
    scene.hub.repository(OPEN).manifests.pop(str(scene.image.manifest), None)
    for _ in range(2):
        assert (await scene.head(OPEN, "manifests", scene.image.manifest)).status == 404
    scene.hub.add_manifest(OPEN, scene.image.manifest_data)
    assert (await scene.head(OPEN, "manifests", scene.image.manifest)).status == 200
    assert scene.hub.requests(None, scene.image.manifest) == 3


async def test_revoked_access_ends_for_the_list_of_tags_without_a_budget(scene: Scene) -> None:
    """An exhausted rate limit does not prolong the access to tags."""
    scene.quay.limit = RateLimit(1)
    path = f"/v2/quay.io/{SECRET}/tags/list"
    assert (await scene.get(f"quay.io/{SECRET}", "manifests", "t")).status == 200
    asked = len(scene.quay.log)
    reply = await get(scene.address, path)
    assert (reply.status, reply.headers.get("warning", "")[:3], len(scene.quay.log)) == (200, "110", asked)
    scene.now += INTERVAL
    assert (await get(scene.address, path)).status == 200
    assert len(scene.quay.log) == asked + 1
    assert scene.quay.auth is not None
    scene.quay.auth.denied.add(SECRET)
    scene.now += INTERVAL
    assert (await get(scene.address, path)).status == 404
