"""Users come from a file, and go with it."""

import asyncio
from io import StringIO
from pathlib import Path

import pytest

from mirror.config.schema import LogSettings
from mirror.util.log import configure
from mirror.web.identity.users import Users

ONE, OTHER = "$2y$05$" + "a" * 53, "$2y$05$" + "b" * 53


async def test_users_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    file, changes = tmp_path / "users", []
    await asyncio.to_thread(file.write_text, f"alice:{ONE}\n")
    users = Users(file, lambda: changes.append("changed"))
    await users.load()
    await users.refresh()
    assert (users.hash_of("alice"), users.hash_of("bob"), changes) == (ONE, None, [])
    stamp = users.stamp("alice")
    await asyncio.to_thread(file.write_text, f"alice:{OTHER}\nbob:{ONE}\n")
    await users.refresh()
    assert (users.hash_of("alice"), users.hash_of("bob"), changes) == (OTHER, ONE, ["changed"])
    assert users.stamp("alice") != stamp is not None
    assert users.stamp("carol") is None


async def test_file_that_is_replaced_is_seen(tmp_path: Path) -> None:
    """Editors write another file in its place."""
    file, other = tmp_path / "users", tmp_path / "new"
    await asyncio.to_thread(file.write_text, f"alice:{ONE}\n")
    users = Users(file)
    await users.load()
    await asyncio.to_thread(other.write_text, f"carol:{ONE}\n")
    await asyncio.to_thread(other.replace, file)
    await users.refresh()
    assert users.hash_of("alice") is None
    assert users.any_hash() == users.hash_of("carol") == ONE


@pytest.mark.usefixtures("own_logging")
async def test_file_that_cannot_be_used_changes_nothing_and_is_logged_once(tmp_path: Path) -> None:
    log = StringIO()
    configure(LogSettings(format="json"), log)
    file, changes = tmp_path / "users", []
    await asyncio.to_thread(file.write_text, f"alice:{ONE}\n")
    users = Users(file, lambda: changes.append("changed"))
    await users.load()
    await asyncio.to_thread(file.write_text, "alice:plain\n")
    for _ in range(3):
        await users.refresh()
    assert log.getvalue().count("users unusable, the old ones stay") == 1
    assert "line 1: the password of 'alice'" in log.getvalue()
    await asyncio.to_thread(file.unlink)
    for _ in range(3):
        await users.refresh()
    assert (users.hash_of("alice"), changes) == (ONE, [])
    await asyncio.to_thread(file.write_text, f"bob:{ONE}\n")
    await users.refresh()
    assert (users.hash_of("alice"), changes) == (None, ["changed"])


async def test_touched_file_is_no_change(tmp_path: Path) -> None:
    file, changes = tmp_path / "users", []
    await asyncio.to_thread(file.write_text, f"alice:{ONE}\n")
    users = Users(file, lambda: changes.append("changed"))
    await users.load()
    await asyncio.to_thread(file.write_text, f"# a comment\nalice:{ONE}\n")
    await users.refresh()
    assert changes == []


async def test_file_that_is_not_there_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await Users(tmp_path / "users").load()
