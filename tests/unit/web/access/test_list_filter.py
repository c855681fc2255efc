"""The list filter: pages of catalogs and tags as a client may see them."""

import json

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.access.identity import Identity
from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule
from mirror.cache.results import CatalogAnswer
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Target, TargetKind, Via
from mirror.web.access.judge import RequestJudge
from mirror.web.access.list_filter import ListFilter
from mirror.web.request_log import RequestRecord

NAMES = ["a/1", "a/2", "b/1", "c/1", "c/2"]
APP = Repository("hub.test", "app")


def request() -> RequestRecord:
    found = RequestRecord(make_mocked_request("GET", "/v2/"))
    found.identity = Identity("127.0.0.1")
    return found


def visible_by(policy: Policy) -> ListFilter:
    return ListFilter(RequestJudge(policy, None))


async def fetch(after: str, limit: int) -> CatalogAnswer:
    left = [each for each in NAMES if each > after]
    return CatalogAnswer(left[:limit], len(left) > limit)


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
@pytest.mark.parametrize(
    ("denied", "seen"),
    [
        ((), NAMES),
        (("hub.test/a/*",), ["b/1", "c/1", "c/2"]),
        (("hub.test/c/*",), ["a/1", "a/2", "b/1"]),
        (("hub.test/a/2", "hub.test/b/*"), ["a/1", "c/1", "c/2"]),
        (("*",), []),
    ],
)
async def test_catalog_pages_join_to_what_may_be_listed(
    limit: int, denied: tuple[str, ...], seen: list[str]
) -> None:
    """Pages of every size: only the last page is short, and only the last one is marked as the last."""
    lists = visible_by(Policy([Rule(1, False, repositories=denied)] if denied else []))
    target = Target(TargetKind.CATALOG, Via.PREFIX, "hub.test")
    found: list[str] = []
    more = True
    while more:
        page, more = await lists.catalog(request(), target, fetch, found[-1] if found else "", limit)
        assert len(page) == limit or not more
        found += page
    assert found == seen


async def test_catalog_without_a_name_for_the_client_asks_for_many_at_once() -> None:
    """A page of one name is no query for each of the names that are not shown."""
    lists, pages = visible_by(Policy(default=False)), []

    async def fetch_many(after: str, limit: int) -> CatalogAnswer:
        pages.append(after)
        left = list(map(str, range(int(after or 0) + 1, 2001)))
        return CatalogAnswer(left[:limit], len(left) > limit)

    target = Target(TargetKind.CATALOG, Via.PREFIX, "hub.test")
    assert await lists.catalog(request(), target, fetch_many, "", 1) == ([], False)
    assert pages == ["", "1000"]


async def test_catalog_of_all_upstreams_is_judged_by_the_name_in_front() -> None:
    lists = visible_by(Policy([Rule(1, False, repositories=("a/*",))]))
    target = Target(TargetKind.CATALOG, Via.ROOT, None)
    assert await lists.catalog(request(), target, fetch, "", 10) == (["b/1", "c/1", "c/2"], False)


@pytest.mark.parametrize("page", [b"", b"[]", b'{"name":"app"}', b'{"tags":7}', b'"tags"', b"\xff"])
async def test_page_of_tags_that_cannot_be_read_is_not_shown(page: bytes) -> None:
    lists = visible_by(Policy([Rule(1, False, tags=("*-rc*",))]))
    with pytest.raises(RegistryError) as refused:
        await lists.tags(request(), APP, page)
    assert refused.value.status == 502


async def test_page_of_tags_is_passed_on_where_nothing_is_denied() -> None:
    assert await visible_by(Policy([Rule(1, True)])).tags(request(), APP, b"bytes") == b"bytes"


async def test_page_has_no_tag_of_a_repository_that_may_not_be_pulled() -> None:
    lists = visible_by(Policy([Rule(1, False, actions=(Action.PULL,))]))
    shown = await lists.tags(request(), APP, b'{"name":"app","tags":["1","2"]}')
    assert json.loads(shown) == {"name": "app", "tags": []}


async def test_page_without_tags_stays_without() -> None:
    lists = visible_by(Policy([Rule(1, False, tags=("*-rc*",))]))
    shown = await lists.tags(request(), APP, b'{"name":"app","tags":null}')
    assert json.loads(shown) == {"name": "app", "tags": []}


async def test_repositories_and_tags_of_which_the_client_may_know() -> None:
    """A repository needs both actions; a tag is judged by its own rule."""
    lists = visible_by(Policy([Rule(1, False, repositories=("hub.test/a/*",)), Rule(2, False, tags=("rc",))]))
    names = {"hub.test/a/1", "hub.test/b/1"}
    assert await lists.repositories(request(), names) == {"hub.test/b/1"}
    assert [lists.may_know_tag(request(), APP, tag) for tag in ("rc", "1")] == [False, True]
    assert lists.hides(request())
    free = visible_by(Policy())
    assert await free.repositories(request(), names) == names
    assert not free.hides(request())
