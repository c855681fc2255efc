"""Access control: pages of catalogs and tags as a client may see them."""

import json

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.access.identity import Identity, Restriction
from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule, parse_network
from mirror.cache.results import CatalogAnswer
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Target, TargetKind, Via
from mirror.web.access_control import PROXIED, AccessControl
from mirror.web.request_log import RequestRecord

NAMES = ["a/1", "a/2", "b/1", "c/1", "c/2"]
APP = Repository("hub.test", "app")


def record() -> RequestRecord:
    found = RequestRecord(make_mocked_request("GET", "/v2/"))
    found.identity = Identity("127.0.0.1")
    return found


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
    access = AccessControl(Policy([Rule(1, False, repositories=denied)] if denied else []))
    target = Target(TargetKind.CATALOG, Via.PREFIX, "hub.test")
    found: list[str] = []
    more = True
    while more:
        page, more = await access.catalog(record(), target, fetch, found[-1] if found else "", limit)
        assert len(page) == limit or not more
        found += page
    assert found == seen


async def test_catalog_without_a_name_for_the_client_asks_for_many_at_once() -> None:
    """A page of one name is no query for each of the names that are not shown."""
    access, pages = AccessControl(Policy(default=False)), []

    async def fetch_many(after: str, limit: int) -> CatalogAnswer:
        pages.append(after)
        left = list(map(str, range(int(after or 0) + 1, 2001)))
        return CatalogAnswer(left[:limit], len(left) > limit)

    target = Target(TargetKind.CATALOG, Via.PREFIX, "hub.test")
    assert await access.catalog(record(), target, fetch_many, "", 1) == ([], False)
    assert pages == ["", "1000"]


async def test_catalog_of_all_upstreams_is_judged_by_the_name_in_front() -> None:
    access = AccessControl(Policy([Rule(1, False, repositories=("a/*",))]))
    target = Target(TargetKind.CATALOG, Via.ROOT, None)
    assert await access.catalog(record(), target, fetch, "", 10) == (["b/1", "c/1", "c/2"], False)


@pytest.mark.parametrize("page", [b"", b"[]", b'{"name":"app"}', b'{"tags":7}', b'"tags"', b"\xff"])
async def test_page_of_tags_that_cannot_be_read_is_not_shown(page: bytes) -> None:
    access = AccessControl(Policy([Rule(1, False, tags=("*-rc*",))]))
    with pytest.raises(RegistryError) as refused:
        await access.visible_tags(record(), APP, page)
    assert refused.value.status == 502


async def test_page_of_tags_is_passed_on_where_nothing_is_denied() -> None:
    assert await AccessControl(Policy([Rule(1, True)])).visible_tags(record(), APP, b"bytes") == b"bytes"


async def test_page_has_no_tag_of_a_repository_that_may_not_be_pulled() -> None:
    access = AccessControl(Policy([Rule(1, False, actions=(Action.PULL,))]))
    shown = await access.visible_tags(record(), APP, b'{"name":"app","tags":["1","2"]}')
    assert json.loads(shown) == {"name": "app", "tags": []}


async def test_page_without_tags_stays_without() -> None:
    access = AccessControl(Policy([Rule(1, False, tags=("*-rc*",))]))
    shown = await access.visible_tags(record(), APP, b'{"name":"app","tags":null}')
    assert json.loads(shown) == {"name": "app", "tags": []}


def test_scope_of_a_proxy_is_apart_from_that_of_a_client_there() -> None:
    rules = [Rule(1, False, actions=(Action.LIST,), networks=(parse_network("10.0.0.0/8"),))]
    access = AccessControl(Policy(rules), [parse_network("10.0.0.1")])
    assert access.scope("10.0.0.2") == ((1,),)
    assert access.scope("10.0.0.1") == ((1,), PROXIED)
    assert AccessControl(Policy()).scope("10.0.0.2") == ()


def test_scope_of_a_connection_has_the_rules_about_all_identities_there() -> None:
    """The same credentials may be allowed from one network and denied from another."""
    inside = (parse_network("10.0.0.0/8"),)
    access = AccessControl(Policy([Rule(1, True, networks=inside, identities=("user:a",))], default=False))
    assert access.scope("10.0.0.2") == ((1,),)
    assert access.scope("192.0.2.1") == ((),)


def test_scope_of_a_connection_has_what_the_client_proves_by_it() -> None:
    access = AccessControl(Policy(), [parse_network("10.0.0.1")])
    assert access.scope("10.0.0.2", ("cert:a",)) == ("cert:a",)
    assert access.scope("10.0.0.1", ("cert:a",)) == ("cert:a", PROXIED)


def test_rights_are_those_of_the_rules_and_of_a_token() -> None:
    """Clients with equal ones get equal responses; whose credentials or proxy decide, has none to share."""
    rules = [Rule(1, True, identities=("user:a",)), Rule(2, True, identities=("user:[bc]",))]
    access = AccessControl(Policy(rules, default=False), [parse_network("10.0.0.1")])

    def rights(*names: str, **facts: object) -> object:
        found = record()
        found.identity = Identity("127.0.0.1", names, (Restriction("token:t", restricted),))
        for name, value in facts.items():
            setattr(found, name, value)
        return access.rights(found)

    restricted: tuple[str, ...] = ()
    assert rights("user:b") == rights("user:c") != rights("user:a")
    assert rights() != rights("user:d")
    free = rights("user:b")
    restricted = ("x/*",)
    assert rights("user:b") == rights("user:c") != free
    assert rights("user:b", guest=object()) is rights("user:b", path_prefix="/t/x") is None
    assert rights("user:b", note="credentials not taken") is None


def test_adopted_policy_and_proxies_hold_at_once() -> None:
    access = AccessControl(Policy())
    access.adopt(Policy(default=False), [parse_network("10.0.0.1")])
    assert access.policy.restricts
    assert access.scope("10.0.0.1") == ((), PROXIED)
