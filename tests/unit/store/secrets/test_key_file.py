"""The key of tokens: one for all processes, and for its owner alone."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.store.secrets.key_file import KEY_BYTES, load_key


def test_key_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "key"
    key = load_key(file)
    assert len(key) == KEY_BYTES
    assert load_key(file) == key
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["key"]


def test_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda _: load_key(tmp_path / "key"), range(64)))
    assert len(set(keys)) == 1
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_key_that_others_could_read_is_replaced(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    key = load_key(file)
    file.chmod(mode)
    assert load_key(file) != key
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"short", bytes(KEY_BYTES + 1)])
def test_key_of_another_length_is_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    assert len(load_key(file)) == KEY_BYTES
    assert file.read_bytes() != content


def test_key_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """The mirror's own user reads what root's command has made, and no key of a third user."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.chown(tmp_path, 1234, 1234)
    file = tmp_path / "key"
    key = load_key(file)
    assert file.stat().st_uid == 1234
    os.chown(file, 4321, 4321)
    assert load_key(file) != key


def test_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(KEY_BYTES))
    (tmp_path / "key").symlink_to("elsewhere")
    with pytest.raises(OSError, match="key"):
        load_key(tmp_path / "key")


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        load_key(tmp_path / "missing" / "key")
