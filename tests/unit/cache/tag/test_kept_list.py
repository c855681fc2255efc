"""Kept tags in lists: behind the upstream's last page, within the number that the client asks for."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.cache.results import Outcome, TagsAnswer
from mirror.cache.tag.kept_list import KeptList
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.links.content import StoredManifest
from mirror.store.metadata.index import Gone, TagEntry
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving

X = Repository("docker.io", "library/x")
MANIFEST = StoredManifest(b"{}", Digest.of(b"{}"), "type")


@pytest.fixture
async def kept(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[KeptList]:
    """Three kept tags, and one whose content is not here any more."""
    config = configured(tmp_path, {"docker.io": hub.url}, tags={"on_gone": "keep"})
    async with serving(config) as mirror:
        store = mirror.service._store
        await store.content.put_manifest(X, MANIFEST, {})
        for name, digest in (("k1", MANIFEST.digest), ("k2", MANIFEST.digest), ("k3", MANIFEST.digest)):
            entry = TagEntry(str(digest), "type", 2, 1.0, gone=Gone(1.0, 1.0))
            await store.metadata.put_tag(X, Tag(name), entry)
        lost = TagEntry(str(Digest.of(b"lost")), "type", 2, 1.0, gone=Gone(1.0, 1.0))
        await store.metadata.put_tag(X, Tag("lost"), lost)
        yield mirror.service.cache._listings._kept


def page(data: object, next_query: str | None = None, outcome: Outcome = Outcome.MISS) -> TagsAnswer:
    return TagsAnswer(json.dumps(data).encode(), next_query, outcome)


@pytest.mark.parametrize(
    ("query", "listed", "tags", "following"),
    [
        ("", ["z", "a"], ["z", "a", "k1", "k2", "k3"], None),
        ("", ["k2"], ["k2", "k1", "k3"], None),
        ("", None, ["k1", "k2", "k3"], None),
        ("n=5", ["z", "a"], ["z", "a", "k1", "k2", "k3"], None),
        ("n=3", ["z", "a"], ["z", "a", "k1"], "n=3&last=k1&kept=1"),
        ("n=2", ["z", "a"], ["z", "a"], "n=2&kept=1"),
        ("n=1", ["z", "a"], ["z", "a"], "n=1&kept=1"),
    ],
)
async def test_kept_tags_follow_the_last_page(
    kept: KeptList, query: str, listed: list[str] | None, tags: list[str], following: str | None
) -> None:
    """The page has as many as fit; the others are on the next page, which is not the upstream's."""
    found = await kept.complete(X, query, page({"name": "library/x", "tags": listed}))
    assert json.loads(found.data) == {"name": "library/x", "tags": tags}
    assert (found.next_query, found.outcome) == (following, Outcome.MISS)


@pytest.mark.parametrize(
    "given",
    [
        page({"tags": ["a"]}, "n=1&last=a"),
        page({"tags": ["a"]}, outcome=Outcome.STALE),
        page({"tags": ["k1", "k2", "k3"]}),
        page({"tags": "odd"}),
        page([1]),
        TagsAnswer(b"<html>", None),
    ],
)
async def test_kept_tags_leave_other_pages_as_they_are(kept: KeptList, given: TagsAnswer) -> None:
    """Pages before the last, lists of known tags, pages that have them, and pages that cannot be read."""
    assert await kept.complete(X, "", given) is given
    assert await kept.complete(Repository("docker.io", "library/y"), "", page({"tags": []})) == page(
        {"tags": []}
    )


async def test_kept_tags_have_pages_of_their_own(kept: KeptList) -> None:
    """Only a query with the parameter is for one."""
    assert await kept.page(X, "n=2&last=a") is None
    found = await kept.page(X, "n=2&kept=1")
    assert found is not None
    assert (json.loads(found.data)["tags"], found.next_query) == (["k1", "k2"], "n=2&last=k2&kept=1")
    found = await kept.page(X, "n=2&last=k2&kept=1")
    assert found is not None
    assert (json.loads(found.data)["tags"], found.next_query) == (["k3"], None)
