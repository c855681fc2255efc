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


def test_the_manager_hears(manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a path, and by an abstract name that is written with an @."""
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_abstract_names(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading @ stands for a zero byte."""
    manager.bind("")  # the kernel chooses an abstract name
    name: bytes = manager.getsockname()
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name[1:].decode()}")
    notify("STOPPING=1")
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run by hand, or with a manager that is gone: no error."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
