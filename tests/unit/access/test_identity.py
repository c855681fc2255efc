"""Identities: how principals are joined and shown."""

from mirror.access.identity import Identity


def test_principals_are_sorted_and_there_once() -> None:
    """Equal clients have equal identities."""
    one = Identity("10.0.0.1").also(["user:b", "group:a"]).also(["user:b"])
    assert one.names == ("group:a", "user:b")
    assert one == Identity("10.0.0.1").also(["user:b"]).also(["group:a"])


def test_identity_is_shown_as_names_and_address() -> None:
    assert str(Identity("10.0.0.1")) == "10.0.0.1"
    assert str(Identity("10.0.0.1", ("cert:a", "user:b"))) == "cert:a, user:b at 10.0.0.1"
