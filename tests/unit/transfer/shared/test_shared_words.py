"""Words that mirrors tell each other by the tier: whole mirrors, whose engines are in memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.shared.bucket_records import BucketRecords
from mirror.shared.engines import Engines
from mirror.shared.keys import tag_key
from mirror.shared.memory import MemoryLeases, MemoryObjects, MemoryRecords, MemoryTier
from mirror.shared.upstream_word import Seal, UpstreamWord
from tests.fakes.access import TokenAuth
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE_DATA, Running, configured, serving
from tests.unit.shared.test_tier import fit
from tests.wire import Reply, get, head

X = "/v2/docker.io/library/x"
SECRET = "a-secret-of-all-mirrors"
NOWHERE = "http://127.0.0.1:9"
LAYER = LARGE_DATA


class Site:
    """Mirrors that share engines in memory."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.objects = MemoryTier()
        self.durable = MemoryObjects()
        self.recent = MemoryRecords()
        self.leases = MemoryLeases()
        self._mirrors = 0
        monkeypatch.setattr("mirror.shared.engines.open_engines", lambda settings: self._engines())

    def _engines(self) -> Engines:
        records = BucketRecords(self.durable)
        return Engines("s3://memory", self.objects, self.leases, fit, records, self.recent)

    @asynccontextmanager
    async def mirror(
        self, url: str, clock: Callable[[], float] = time.time, redirect: Sequence[str] = (), **sections: Any
    ) -> AsyncIterator[Running]:
        """An empty mirror, with the tier in use; at its end it has told the others all that it knows."""
        self._mirrors += 1
        shared = {"url": "s3://memory", "peers_secret": SECRET, "redirect": redirect}
        config = configured(self.folder / str(self._mirrors), {"docker.io": url}, shared=shared, **sections)
        async with serving(config, clock) as mirror:
            shared_transfers = mirror.service.shared
            assert shared_transfers is not None
            while not shared_transfers.tier.usable:  # noqa: ASYNC110
                await asyncio.sleep(0)
            yield mirror
            book = shared_transfers.words._book
            assert book is not None
            await book.wait_written()
            while shared_transfers.publisher._workers:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


async def pull(mirror: Running, reference: str | Digest = "t", repository: str = X) -> list[Reply]:
    """Pull an image as containerd does; return all replies."""
    replies = [await head(mirror.address, f"{repository}/manifests/{reference}")]
    digest = replies[0].header("docker-content-digest")
    replies.append(await get(mirror.address, f"{repository}/manifests/{digest}"))
    return replies


async def pull_blobs(mirror: Running, *digests: Digest) -> list[bytes]:
    bodies = []
    for digest in digests:
        reply = await get(mirror.address, f"{X}/blobs/{digest}")
        assert (reply.status, reply.complete) == (200, True), reply
        await mirror.landed(digest)
        bodies.append(reply.body)
    return bodies


async def test_shared_image_is_served_by_an_empty_mirror_without_an_upstream(
    fake: FakeRegistry, site: Site
) -> None:
    """Tag, manifest, config and layers come from the tier: fresh, and later stale, if all are there."""
    image = fake.add_image("library/x", "t", [LAYER, b"small"])
    content = {image.config: None, **dict.fromkeys(image.layers)}
    async with site.mirror(fake.url) as first:
        assert (await get(first.address, f"{X}/manifests/t")).body == image.manifest_data
        bodies = await pull_blobs(first, *content)
    async with site.mirror(NOWHERE) as second:
        assert [each.status for each in await pull(second)] == [200, 200]
        assert await pull_blobs(second, *content) == bodies
    later = time.time() + 3600
    async with site.mirror(NOWHERE, lambda: later) as third:
        reply = await get(third.address, f"{X}/manifests/t")
        assert (reply.status, reply.body) == (200, image.manifest_data)
        assert reply.header("warning").startswith("110 ")
        assert await pull_blobs(third, *content) == bodies
    site.recent._texts.clear()  # the coordinator was flushed: the bucket has what is needed
    async with site.mirror(NOWHERE) as fourth:
        assert (await get(fourth.address, f"{X}/manifests/t")).body == image.manifest_data


async def test_shared_tag_is_fresh_for_all_once_one_mirror_has_confirmed_it(
    fake: FakeRegistry, site: Site
) -> None:
    """The second mirror asks nothing; when the first has asked again, both have the new image."""
    now = time.time()
    old = fake.add_image("library/x", "t", [b"old"])
    async with (
        site.mirror(fake.url, lambda: now) as first,
        site.mirror(fake.url, lambda: now) as second,
    ):
        await get(first.address, f"{X}/manifests/t")
        await written(first)
        asked = len(fake.log)
        assert (await get(second.address, f"{X}/manifests/t")).body == old.manifest_data
        assert len(fake.log) == asked
        now += 3600
        new = fake.add_image("library/x", "t", [b"new"])
        while (await get(first.address, f"{X}/manifests/t")).body != new.manifest_data:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # revalidated in the background
        await written(first)
        words_of(second)._asked.drop(tag_key(Repository("docker.io", "library/x"), Tag("t")))
        asked = len(fake.log)
        assert (await get(second.address, f"{X}/manifests/t")).body == new.manifest_data
        assert len(fake.log) == asked


def words_of(mirror: Running) -> Any:
    assert mirror.service.shared is not None
    return mirror.service.shared.words


async def written(mirror: Running) -> None:
    """Wait until all that a mirror has to tell is told."""
    await words_of(mirror)._book.wait_written()
    assert mirror.service.shared is not None
    while mirror.service.shared.publisher._workers:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_shared_words_of_a_missing_tag_are_believed_for_a_while(fake: FakeRegistry, site: Site) -> None:
    """One mirror has asked; the others answer 404 unasked, and ask themselves after `tags.missing`."""
    fake.add_image("library/x", "other", [b"a"])
    now = time.time()
    async with site.mirror(fake.url, lambda: now) as first:
        assert (await get(first.address, f"{X}/manifests/absent")).status == 404
    asked = len(fake.log)
    async with site.mirror(fake.url, lambda: now) as second:
        reply = await get(second.address, f"{X}/manifests/absent")
        assert (reply.status, b"another mirror" in reply.body) == (404, True)
        assert len(fake.log) == asked
    now += 3600
    fake.add_image("library/x", "absent", [b"a"])
    async with site.mirror(fake.url, lambda: now) as third:
        assert (await get(third.address, f"{X}/manifests/absent")).status == 200


async def test_shared_words_of_private_repositories_stay_with_their_mirror(
    fake: FakeRegistry, site: Site
) -> None:
    """A mirror with an account tells nothing, and a mirror without its own upstream's word opens nothing."""
    fake.auth = TokenAuth(users={"me": "secret"}, private={"library/x"})
    image = fake.add_image("library/x", "t", [LAYER])
    account = {"username": "me", "password": "secret", "private": "everybody"}
    async with site.mirror(fake.url, upstream=account) as first:
        assert (await get(first.address, f"{X}/manifests/t")).status == 200
        await pull_blobs(first, *image.layers, image.config)
    assert not site.recent._texts
    assert not site.durable._objects
    assert await site.objects.stat(image.manifest) is not None  # by digest, which opens nothing
    async with site.mirror(fake.url) as without_account:
        for what in (f"manifests/{image.manifest}", "manifests/t", f"blobs/{image.layers[0]}"):
            assert (await get(without_account.address, f"{X}/{what}")).status in (401, 403, 404), what
        assert await without_account.metric('registry_mirror_shared_fills_total{outcome="tier"}') == 0


async def test_shared_words_are_not_believed_by_a_mirror_with_an_account(
    fake: FakeRegistry, site: Site
) -> None:
    """The own upstream decides: what was public for another mirror may be another one's here."""
    image = fake.add_image("library/x", "t", [LAYER])
    async with site.mirror(fake.url) as first:
        await get(first.address, f"{X}/manifests/t")
        await pull_blobs(first, *image.layers)
    account = {"username": "me", "password": "secret", "private": "everybody"}
    async with site.mirror(NOWHERE, upstream=account) as second:
        for what in (f"manifests/{image.manifest}", "manifests/t", f"blobs/{image.layers[0]}"):
            assert (await get(second.address, f"{X}/{what}")).status == 424, what


async def test_shared_words_without_the_seal_are_ignored(fake: FakeRegistry, site: Site) -> None:
    """A program that can write to bucket and coordinator, and has not the secret, moves no tag."""
    image = fake.add_image("library/x", "t", [b"right"])
    evil = fake.add_image("library/evil", "t", [b"evil"])
    key = tag_key(Repository("docker.io", "library/x"), Tag("t"))
    word = UpstreamWord(
        time.time(), evil.manifest, len(evil.manifest_data), "application/vnd.oci.image.manifest.v1+json"
    )
    forged = Seal("another-secret-of-somebody").wrap(key, word.to_bytes())
    assert forged is not None
    for text in (forged, word.to_bytes(), b"\xff" * 300, b""):
        await site.recent.put(key, text, 3600)
        await site.durable.write(f"records/{key}", text)
        async with site.mirror(fake.url) as mirror:
            assert (await get(mirror.address, f"{X}/manifests/t")).body == image.manifest_data


async def test_shared_referrers_are_those_of_one_mirror_for_all(fake: FakeRegistry, site: Site) -> None:
    """The list of signatures, and that there are none, is asked for once."""
    image = fake.add_image("library/x", "t", [b"a"])
    url = f"{X}/referrers/{image.manifest}"
    async with site.mirror(fake.url) as first:
        told = (await get(first.address, url)).body
    asked = len(fake.log)
    async with site.mirror(fake.url) as second:
        assert (await get(second.address, url)).body == told
        assert len(fake.log) == asked


async def test_shared_small_blob_that_is_wrong_is_replaced(fake: FakeRegistry, site: Site) -> None:
    """A manifest and a config with wrong bytes come from the upstream, and go to the tier again."""
    image = fake.add_image("library/x", "t", [b"a"])
    async with site.mirror(fake.url) as first:
        await get(first.address, f"{X}/manifests/t")
        await pull_blobs(first, image.config)
    for digest in (image.manifest, image.config):
        data, modified = site.objects._blobs[digest]
        site.objects._blobs[digest] = (b"!" + data[1:], modified)
    async with site.mirror(fake.url) as second:
        assert (await get(second.address, f"{X}/manifests/{image.manifest}")).body == image.manifest_data
        await pull_blobs(second, image.config)
    for digest in (image.manifest, image.config):
        assert Digest.of(site.objects._blobs[digest][0]) == digest
