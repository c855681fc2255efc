"""Identities: how principals are joined and shown."""

from mirror.access.identity import Identity, Restriction
from mirror.access.rules import Action
from mirror.oci.reference import Repository


def test_principals_are_sorted_and_there_once() -> None:
    """Equal clients have equal identities."""
    one = Identity("10.0.0.1").also(["user:b", "group:a"]).also(["user:b"])
    assert one.names == ("group:a", "user:b")
    assert one == Identity("10.0.0.1").also(["user:b"]).also(["group:a"])


def test_identity_is_shown_as_names_and_address() -> None:
    assert str(Identity("10.0.0.1")) == "10.0.0.1"
    assert str(Identity("10.0.0.1", ("cert:a", "user:b"))) == "cert:a, user:b at 10.0.0.1"


def test_limits_restrict_beside_the_rules() -> None:
    """All of them must permit; a list that a limit leaves out permits everything."""
    alpine, app = Repository("docker.io", "library/alpine"), Repository("quay.io", "org/app")
    narrow, pulls = (
        Restriction("token:a", ("docker.io/library/*",)),
        Restriction("token:b", actions=(Action.PULL,)),
    )
    free, both = Identity("10.0.0.1"), Identity("10.0.0.1").within([narrow]).within([narrow, pulls])
    assert both.restrictions == (narrow, pulls)
    assert both.also(["user:a"]).restrictions == both.restrictions
    assert all(free.forbidden_by(action, each) is None for action in Action for each in (alpine, app))
    assert both.forbidden_by(Action.PULL, alpine) is None
    assert both.forbidden_by(Action.PULL, app) == narrow
    assert both.forbidden_by(Action.LIST, alpine) == pulls
