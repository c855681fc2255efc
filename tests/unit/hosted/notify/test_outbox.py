"""The queue of notifications: in order, durable, bounded."""

from pathlib import Path

import pytest

from mirror.hosted.notify import outbox
from mirror.hosted.notify.outbox import FOLDER, Outbox, OutboxFull, Queued


def test_queue_keeps_order_and_state_over_a_restart(tmp_path: Path) -> None:
    first, second = Outbox(tmp_path), Outbox(tmp_path)
    assert first.names() == []
    later = first.add(Queued("h", "later", 2.0))
    sooner = second.add(Queued("h", "sooner", 1.0))
    assert second.names() == [sooner, later]
    first.put(later, Queued("h", "later", 2.0, 3, 9.0))
    assert second.read(later) == Queued("h", "later", 2.0, 3, 9.0)
    second.remove(sooner)
    second.remove(sooner)
    assert first.read(sooner) is None
    assert first.names() == [later]
    assert (tmp_path / FOLDER).stat().st_mode & 0o077 == 0


def test_unreadable_notification_is_removed(tmp_path: Path) -> None:
    queue = Outbox(tmp_path)
    name = queue.add(Queued("h", "x", 1.0))
    (tmp_path / FOLDER / f"{name}.json").write_text("{")
    assert queue.read(name) is None
    assert queue.names() == []


def test_queue_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST", 1)
    queue = Outbox(tmp_path)
    queue.add(Queued("h", "x", 1.0))
    with pytest.raises(OutboxFull):
        queue.add(Queued("h", "y", 1.0))
