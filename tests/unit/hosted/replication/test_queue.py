"""The queue of a target: one file for each tag, set aside while the worker is at it, bounded."""

from pathlib import Path

import pytest

from mirror.hosted.replication import queue
from mirror.hosted.replication.queue import ReplicaEntry, ReplicationQueue, ReplicationQueueFull

ENTRY = ReplicaEntry("app", "1", 10.0)


def test_entry_stands_for_all_pushes_of_a_tag(tmp_path: Path) -> None:
    found = ReplicationQueue(tmp_path, "key")
    assert found.entries() == []
    found.add(ENTRY)
    later = ReplicaEntry("app", "1", 20.0)
    found.add(later)
    found.add(ReplicaEntry("app", "2", 5.0))
    assert [each.queued for each in found.entries()] == [5.0, 20.0]
    assert found.count() == 2


def test_push_during_the_work_is_not_forgotten(tmp_path: Path) -> None:
    found = ReplicationQueue(tmp_path, "key")
    found.add(ENTRY)
    found.begin(ENTRY)
    assert found.entries() == [ENTRY]  # a process that dies now leaves it
    later = ReplicaEntry("app", "1", 20.0)
    found.add(later)
    found.finish(ENTRY)
    assert found.entries() == [later]
    found.begin(later)
    found.put_off(later, ReplicaEntry("app", "1", 20.0, attempts=1))
    assert [each.attempts for each in found.entries()] == [1]
    found.begin(later)
    newest = ReplicaEntry("app", "1", 30.0)
    found.add(newest)
    found.put_off(later, ReplicaEntry("app", "1", 20.0, attempts=2))
    assert found.entries() == [newest]
    found.begin(newest)
    found.finish(newest)
    assert found.count() == 0


def test_queue_is_bounded_and_damage_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST", 1)
    found = ReplicationQueue(tmp_path, "key")
    found.add(ENTRY)
    found.add(ENTRY)
    with pytest.raises(ReplicationQueueFull):
        found.add(ReplicaEntry("app", "2", 5.0))
    (path,) = (tmp_path / "replication" / "key").iterdir()
    path.write_text("{")
    assert found.entries() == []
    assert found.count() == 0


def test_deletion_stays_one_until_it_is_done(tmp_path: Path) -> None:
    """A push that is refused queues the tag again, and would take the deletion's place."""
    found = ReplicationQueue(tmp_path, "key")
    deleted, pushed = ReplicaEntry("app", "1", 10.0, deletes=True), ReplicaEntry("app", "1", 20.0)
    found.add(deleted)
    found.add(pushed)
    (entry,) = found.entries()
    assert (entry.queued, entry.deletes) == (20.0, True)
    found.begin(entry)
    found.add(pushed)
    assert [each.deletes for each in found.entries()] == [True]
    found.put_off(entry, ReplicaEntry("app", "1", 20.0, attempts=1, deletes=True))
    assert [(each.attempts, each.deletes) for each in found.entries()] == [(0, True)]
    found.begin(entry)
    found.finish(entry)
    found.add(pushed)
    assert found.entries() == [pushed]
