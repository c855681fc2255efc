"""sd_notify over a real socket."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.system.sd_notify import notify


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        yield listening


def test_notify_by_path(manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOTIFY_SOCKET may be a path."""
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_notify_by_abstract_name(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading @ stands for a zero byte."""
    manager.bind("")  # the kernel chooses an abstract name
    name: bytes = manager.getsockname()
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name[1:].decode()}")
    notify("STOPPING=1")
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_notify_without_a_manager_does_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start by hand and a manager that has gone away cause no error."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
