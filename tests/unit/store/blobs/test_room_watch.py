"""The watch over free space."""

from pathlib import Path

from structlog.testing import capture_logs

from mirror.store.blobs.quota import DiskRoom, Quota, Shortage
from mirror.store.blobs.room_watch import MARGIN_BYTES, RoomWatch


class Disk:
    """A file system whose free bytes a test sets."""

    def __init__(self, free: int) -> None:
        self.free = free

    def shortage(self, margin: int) -> Shortage | None:
        return Quota(min_free=1 << 30).shortage(DiskRoom(1 << 40, self.free, 0), Path("/x"), margin)


def test_room_watch_reports_a_shortage_once_and_its_end() -> None:
    """One warning while the shortage lasts, one line with its duration when it is over."""
    disk, now = Disk(5), [100.0]
    watch = RoomWatch(disk.shortage, lambda: now[0])
    with capture_logs() as lines:
        watch.look(report=True)
        watch.look(report=True)
        now[0] = 160.0
        disk.free = 1 << 31
        watch.look(report=True)
        watch.look(report=True)
    assert [line["log_level"] for line in lines] == ["warning", "info"]
    assert "nothing will be kept" in lines[0]["event"]
    assert lines[1]["seconds"] == 60
    assert watch.current is None


def test_room_watch_does_not_flap() -> None:
    """A shortage begins at nothing and is over when there is room for something."""
    disk = Disk((1 << 30) + 1)
    watch = RoomWatch(disk.shortage)
    seen = []
    with capture_logs() as lines:
        for free in (1, 0, 1, MARGIN_BYTES, MARGIN_BYTES + 1):
            disk.free = (1 << 30) + free
            watch.look(report=True)
            seen.append(watch.current is not None)
    assert seen == [False, True, True, True, False]
    assert len(lines) == 2


def test_room_watch_of_another_worker_is_silent() -> None:
    """Each worker knows of the shortage, for /readyz; one of them logs it."""
    watch = RoomWatch(Disk(0).shortage)
    with capture_logs() as lines:
        watch.look(report=False)
    assert watch.current is not None
    assert lines == []
