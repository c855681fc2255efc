"""Files of uploads: their names, and the end of idle ones."""

import os
from pathlib import Path

import pytest

from mirror.oci.reference import Repository
from mirror.store.partial.upload_files import FILE_NAME, UploadFiles, by_owner, prefix_of

APP, OTHER = Repository("office", "app"), Repository("office", "other")


def test_names_begin_with_registry_and_repository(tmp_path: Path) -> None:
    name = UploadFiles(tmp_path).path(APP, "a" * 32, "sha256").name
    assert FILE_NAME.fullmatch(name)
    assert name.startswith(prefix_of("office/app"))
    assert prefix_of("office/app").startswith(prefix_of("office"))
    assert not name.startswith(prefix_of("office/other"))


def test_sessions_are_grouped_by_repository() -> None:
    few, many = ["a" * 32 + "-1"], ["b" * 32 + "-1", "b" * 32 + "-2"]
    assert by_owner([*few, *many]) == [many, few]


def test_oldest_session_ends_unless_it_is_in_use(tmp_path: Path) -> None:
    files = UploadFiles(tmp_path / "uploads")
    paths = [files.path(APP, str(number) * 32, "sha256") for number in range(4)]
    held = [files.create(path) for path in paths]
    for number, path in enumerate(paths):
        os.utime(path, (number, number))
    for descriptor in held[1:]:
        os.close(descriptor)
    with pytest.raises(BlockingIOError):
        files.open_locked(paths[0])
    assert files.end_oldest(files.names("office"), before=3)
    assert files.end_oldest(files.names("office"), before=3)
    assert not files.end_oldest(files.names("office"), before=3)
    assert sorted(files.names()) == sorted([paths[0].name, paths[3].name])
    os.close(held[0])
