"""A reload: workers forget what they remember for clients, and the service manager hears of it."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from mirror.server.reload import note_new_rules, notify_reloading
from mirror.store.invalidation import Epoch


def test_note_new_rules_changes_the_access_epoch_of_all_processes(tmp_path: Path) -> None:
    with closing(Epoch(tmp_path / "generation")) as worker:
        before, removals = worker.access_changes(), worker.removals()
        note_new_rules(tmp_path)
        assert worker.access_changes() != before
        assert worker.removals() == removals


def test_notify_reloading_has_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form that systemd wants of services of Type=notify-reload."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify_reloading()
        first, second = manager.recv(1000).decode().splitlines()
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
