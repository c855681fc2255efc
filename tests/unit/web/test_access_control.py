"""Access control: scopes of connections, rights of clients, and an adopted policy."""

from aiohttp.test_utils import make_mocked_request

from mirror.access.identity import Identity, Restriction
from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule, parse_network
from mirror.oci.reference import Repository
from mirror.web.access_control import PROXIED, AccessControl
from mirror.web.request_log import RequestRecord

NAMES = ["a/1", "a/2", "b/1", "c/1", "c/2"]
APP = Repository("hub.test", "app")


def record() -> RequestRecord:
    found = RequestRecord(make_mocked_request("GET", "/v2/"))
    found.identity = Identity("127.0.0.1")
    return found


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
