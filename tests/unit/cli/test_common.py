"""Imports of commands, which are most of their start-up time."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mirror.cli.common import require_access
from tests.fakes.cached import X, open_folder, put_image
from tests.folders import open_to_all
from tests.programs import without_coverage
from tests.unit.cli.test_app import run

# Packages that none of the commands below needs, and what each one costs in milliseconds.
SERVER_ONLY = {
    "aiohttp",
    "prometheus_client",
    "aiofiles",
    "rich",
    "structlog",
    "asyncio",
}  # 120 30 20 60 60 50

SCRIPT = """
import sys
from mirror.cli.app import main
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    """Return the top-level packages that a command has imported when it ends."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    env = without_coverage()  # it imports too
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=True)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["serve", "--help"], ["ls", "-h"]])
def test_startup_of_help_imports_neither_configuration_nor_store(arguments: list[str]) -> None:
    """A page of help needs typer."""
    assert not imported(*arguments) & {*SERVER_ONLY, "diskcache", "tomllib", "sqlite3"}


@pytest.mark.parametrize(
    "command", [["ls"], ["du"], ["pins"], ["gc"], ["gc", "--dry-run"], ["config", "show"]]
)
def test_startup_of_commands_imports_no_server(command: list[str], tmp_path: Path) -> None:
    """A look at the cache needs the configuration and the store, and nothing of the server."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"a"])
    folder.close()
    assert not imported(*command, "--cache-dir", str(tmp_path / "cache")) & SERVER_ONLY


@pytest.mark.parametrize(("command", "status"), [("ls", 1), ("verify", 2), ("gc", 1)])
def test_cache_folder_that_is_a_file(command: str, status: int, tmp_path: Path) -> None:
    """The message names the path, without a traceback and without a number of an error."""
    (tmp_path / "file").touch()
    done = run(command, "--cache-dir", str(tmp_path / "file"))
    assert done.returncode == status
    assert str(tmp_path / "file") in done.stderr
    assert "no cache" in done.stderr
    assert "Errno" not in done.stderr


def test_cache_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the owner, and sudo."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as said:
        require_access(tmp_path, 2)
    assert ended.value.code == 2
    assert f"{tmp_path} belongs to {tmp_path.owner()}. Run this with sudo" in said.getvalue()


def test_cache_folder_on_a_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other user could write there either, so the message names the file system."""
    disk = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as said:
        require_access(tmp_path, 1)
    assert ended.value.code == 1
    assert f"{tmp_path} is on a read-only file system" in said.getvalue()
    assert "sudo" not in said.getvalue()


def test_cache_folder_below_one_that_cannot_be_searched(tmp_path: Path) -> None:
    """The message names the folder above, and its owner; there is no traceback."""
    closed = tmp_path / "closed"
    closed.mkdir(0)
    root = os.geteuid() == 0
    if root:
        open_to_all(tmp_path)
        os.seteuid(65534)
    try:
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as said:
            require_access(closed / "cache", 1)
    finally:
        if root:
            os.seteuid(0)
        closed.chmod(0o700)
    assert ended.value.code == 1
    assert f"{closed / 'cache'} cannot be reached: {closed} belongs to {closed.owner()}" in said.getvalue()
