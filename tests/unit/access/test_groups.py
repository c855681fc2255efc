"""Groups: found by their members' names and patterns."""

from mirror.access.groups import Group, Groups

GROUPS = Groups(
    [
        Group("dev", ("user:alice", "user:bob")),
        Group("ci", ("cert:build*", "user:bob")),
        Group("all", ("*",)),
        Group("nested", ("group:dev",)),
    ]
)


def test_principals_are_in_the_groups_that_name_them() -> None:
    for _ in range(2):
        assert GROUPS.of(("user:alice",)) == ("group:all", "group:dev")
        assert GROUPS.of(("cert:build7", "user:carol")) == ("group:all", "group:ci")
        assert GROUPS.of(("user:bob",)) == ("group:all", "group:ci", "group:dev")


def test_nobody_is_in_no_group() -> None:
    assert GROUPS.of(()) == ()
    assert Groups().of(("user:alice",)) == ()
