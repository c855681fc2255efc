"""Limits: whom each is about, and who shares its bounds."""

import pytest

from mirror.access.identity import Identity
from mirror.access.limits import Bounds, Limit, LimitTable, Per, who
from mirror.access.rules import parse_network

ALICE = Identity("10.1.2.3", ("group:dev", "user:alice"))
BUILD = Identity("10.1.2.4", ("cert:build", "group:dev"))
NOBODY = Identity("10.1.2.5")


def sharer(
    identity: Identity, per: Per, networks: tuple[str, ...] = (), identities: tuple[str, ...] = ()
) -> object:
    limit = Limit(1, "l", per, Bounds(), identities, tuple(map(parse_network, networks)))
    found = LimitTable([limit]).about(identity)
    return found[0].sharer if found else None


@pytest.mark.parametrize(
    ("per", "shared"),
    [
        (Per.CLIENT, ["10.1.2.3", "10.1.2.4", "10.1.2.5"]),
        (Per.IDENTITY, ["user:alice", "cert:build", "10.1.2.5"]),
        (Per.NETWORK, ["10.1.0.0/16"] * 3),
        (Per.ALL, [""] * 3),
    ],
)
def test_bounds_are_shared_by_client_identity_network_or_all(per: Per, shared: list[str]) -> None:
    assert [sharer(each, per, ("10.1.0.0/16",)) for each in (ALICE, BUILD, NOBODY)] == shared


def test_limit_is_about_its_networks_and_identities_only() -> None:
    assert sharer(ALICE, Per.ALL, ("10.9.0.0/16",)) is None
    assert sharer(ALICE, Per.ALL, ("10.1.0.0/16",), ("user:bob",)) is None
    assert sharer(ALICE, Per.ALL, (), ("user:bob", "group:*")) == ""
    assert sharer(NOBODY, Per.ALL, (), ("*",)) is None
    assert sharer(Identity(""), Per.ALL, ("10.1.0.0/16",)) is None
    assert sharer(Identity(""), Per.CLIENT) == ""


def test_client_of_ipv6_is_its_network() -> None:
    """Any host has as many addresses in its /64 as it wants."""
    assert sharer(Identity("2001:db8:1:2::1"), Per.CLIENT) == sharer(
        Identity("2001:db8:1:2:f::9"), Per.CLIENT
    )
    assert sharer(Identity("2001:db8:1:3::1"), Per.CLIENT) != sharer(Identity("2001:db8:1:2::1"), Per.CLIENT)
    assert sharer(Identity("::ffff:10.1.2.3"), Per.CLIENT) == "10.1.2.3"


def test_networks_are_counted_each_for_itself() -> None:
    networks = ("10.1.2.0/24", "10.1.0.0/16")
    assert sharer(ALICE, Per.NETWORK, networks) == "10.1.2.0/24"
    assert sharer(Identity("10.1.9.9"), Per.NETWORK, networks) == "10.1.0.0/16"
    assert sharer(ALICE, Per.NETWORK) == "10.1.2.3"


def test_all_limits_that_match_apply_in_their_order() -> None:
    limits = [Limit(number, str(number), Per.ALL, Bounds()) for number in (1, 2)]
    assert [each.limit for each in LimitTable(limits).about(ALICE)] == limits
    assert LimitTable().about(ALICE) == ()


def test_identity_is_who_a_client_is_before_what_it_belongs_to() -> None:
    assert who(Identity("a", ("group:x", "jwt:gitlab:project:7"))) == "jwt:gitlab:project:7"
    assert who(Identity("a", ("cert:build", "san:build", "token:ci", "user:z"))) == "user:z"
    assert who(Identity("a", ("group:x",))) == "group:x"
    assert who(Identity("fd00::1")) == "fd00:0:0:0"


def test_limits_that_refuse_content_are_told_by_address() -> None:
    """Identities do not matter: no refusal may be remembered for others, nor their answers for the client."""
    limits = LimitTable(
        [
            Limit(1, "a", Per.ALL, Bounds(blob=1)),
            Limit(2, "b", Per.ALL, Bounds(blob=1), networks=(parse_network("10.1.0.0/16"),)),
            Limit(3, "c", Per.ALL, Bounds(requests=1)),
            Limit(4, "d", Per.ALL, Bounds(blob=1), ("user:x",)),
        ]
    )
    assert limits.refusing("10.1.2.3") == (1, 2, 4)
    assert limits.refusing("10.2.2.3") == (1, 4)
