"""Folders that another process writes to, with the rights of the command's caller."""

import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.cli.carry.outputs import HandedFolder, output_folder, serve
from mirror.manage.carry.export import OutputFolder


@pytest.fixture
def handed(tmp_path: Path) -> Iterator[HandedFolder]:
    """A folder that a process of its own serves."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(ours, theirs, tmp_path))
    process.start()
    theirs.close()
    yield HandedFolder(tmp_path, ours)
    ours.close()
    process.join(30)
    assert process.exitcode == 0


def _serve(ours: socket.socket, theirs: socket.socket, path: Path) -> None:
    ours.close()
    serve(theirs, OutputFolder(path))


def test_handed_folder_opens_and_renames(handed: HandedFolder, tmp_path: Path) -> None:
    """Files are written by their descriptors; names are those of the folder."""
    descriptor = handed.open("a.part", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"content")
    os.close(descriptor)
    assert handed.names() == ["a.part"]
    handed.rename("a.part", "a")
    assert (tmp_path / "a").read_bytes() == b"content"


def test_handed_folder_raises_errors_as_they_are(handed: HandedFolder) -> None:
    """An error has its number and its file."""
    with pytest.raises(FileNotFoundError, match="none"):
        handed.open("none", os.O_RDONLY)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b"])
def test_handed_folder_has_its_own_files_alone(handed: HandedFolder, name: str) -> None:
    """No name leads out of the folder."""
    with pytest.raises(PermissionError):
        handed.open(name, os.O_RDWR | os.O_CREAT)


def test_output_folder_is_plain_without_need(tmp_path: Path) -> None:
    """The owner of the cache, and root for a cache of its own, write themselves."""
    assert type(output_folder(tmp_path, tmp_path)) is OutputFolder
    assert type(output_folder(tmp_path, tmp_path / "none")) is OutputFolder
