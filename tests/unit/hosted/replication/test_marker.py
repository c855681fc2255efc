"""The mark of replicated pushes belongs to one request."""

from mirror.hosted.replication.marker import HEADER, is_replica, noting_replica


def test_mark_holds_within_its_request() -> None:
    assert not is_replica()
    with noting_replica({HEADER: "1"}):
        assert is_replica()
        with noting_replica({}):
            assert not is_replica()
        assert is_replica()
    assert not is_replica()
