"""The keeper of what is gone upstream: marks, labels, policy. tests/contract/test_gone.py has the ways."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.cache.tag.gone import GoneKeeper, GoneUpstream, gone_since
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.links.content import StoredManifest
from mirror.store.metadata.index import Gone, Link, TagEntry
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving

X = Repository("docker.io", "library/x")
NOW = 1_700_000_000.0
DATA = b"{}"
MANIFEST = StoredManifest(DATA, Digest.of(DATA), "type")
ENTRY = TagEntry(str(MANIFEST.digest), "type", 2, NOW - 100)
MISSING = UpstreamError(Failure.NOT_FOUND, "docker.io answered 404", status=404)


@pytest.fixture
async def mirror(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    tags = {"on_gone": "keep", "fresh": 60}
    async with serving(configured(tmp_path, {"docker.io": hub.url}, tags=tags), lambda: NOW) as running:
        yield running


def keeper(mirror: Running) -> GoneKeeper:
    return mirror.service.cache._tags._gone


async def test_gone_keeper_marks_a_tag_whose_content_is_here(mirror: Running) -> None:
    """Not one without an entry, nor without content; the first moment stays."""
    store, t = mirror.service._store, Tag("t")
    assert await keeper(mirror).keep_tag(X, t, MISSING) is None
    await store.metadata.put_tag(X, t, ENTRY)
    assert await keeper(mirror).keep_tag(X, t, MISSING) is None
    await store.content.put_manifest(X, MANIFEST, {})
    assert await keeper(mirror).keep_tag(X, t, MISSING) == Gone(NOW, NOW)
    kept = await store.metadata.tag(X, t)
    assert kept is not None
    assert (kept.gone, kept.confirmed) == (Gone(NOW, NOW), NOW - 100)
    folder = store.folder
    before = TagEntry(str(MANIFEST.digest), "type", 2, NOW - 100, gone=Gone(NOW - 50, NOW - 40))
    await store.executor.run(folder.index.put_tag, X, t, before)  # as another process does
    assert await keeper(mirror).keep_tag(X, t, MISSING) == Gone(NOW - 50, NOW)


async def test_gone_keeper_marks_a_link_whose_content_is_here(mirror: Running) -> None:
    """The confirmation stays, so that the account's access is asked about again."""
    store, link = mirror.service._store, Link("type", 2, NOW - 100, account=True)
    assert await keeper(mirror).keep_link(X, MANIFEST.digest, link, MISSING) is None
    await store.content.put_manifest(X, MANIFEST, {})
    assert await keeper(mirror).keep_link(X, MANIFEST.digest, link, MISSING) == Gone(NOW, NOW)
    marked = await store.metadata.links.read_again(X, MANIFEST.digest)
    assert marked == Link("type", 2, NOW - 100, account=True, gone=Gone(NOW, NOW))


async def test_gone_keeper_asks_as_seldom_as_about_a_fresh_tag(mirror: Running) -> None:
    """An answer from the future, after a clock was set back, is no answer."""
    marks = [Gone(1.0, asked) for asked in (NOW, NOW - 59, NOW - 60, NOW + 1)]
    assert [keeper(mirror).asked_lately(X, each) for each in (*marks, None)] == [
        True,
        True,
        False,
        False,
        False,
    ]


async def test_gone_keeper_drops_by_default(hub: FakeRegistry, tmp_path: Path) -> None:
    """Marks of a time when content was kept count no more."""
    async with serving(configured(tmp_path, {"docker.io": hub.url}), lambda: NOW) as mirror:
        store = mirror.service._store
        await store.content.put_manifest(X, MANIFEST, {})
        await store.metadata.put_tag(X, Tag("t"), ENTRY)
        assert not keeper(mirror).keeps(X)
        assert await keeper(mirror).keep_tag(X, Tag("t"), MISSING) is None
        assert not keeper(mirror).asked_lately(X, Gone(NOW, NOW))


async def test_gone_label_has_date_and_age(mirror: Running) -> None:
    """The age is that of the last confirmation, if there was one."""
    label = keeper(mirror).staleness(Gone(NOW, NOW), NOW - 100)
    assert (label.age, label.reason, label.refused) == (
        100.0,
        "gone upstream since 2023-11-14; kept here",
        False,
    )
    assert (
        keeper(mirror).staleness(Gone(NOW, NOW), None, "why").reason == f"{gone_since(Gone(NOW, NOW))}; why"
    )
    error = GoneUpstream(MISSING, Gone(NOW, NOW))
    assert (error.failure, error.status, str(error)) == (Failure.NOT_FOUND, 404, str(MISSING))
