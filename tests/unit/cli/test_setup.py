"""`setup` as a process: what is shown, written and taken back."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.test_app import run
from tests.unit.setup.test_running_mirror import GOOD, answering

pytestmark = pytest.mark.slow


@pytest.fixture
def mirror() -> Iterator[str]:
    with answering(GOOD) as address:
        yield address


def test_setup_shows_and_writes_nothing(mirror: str, tmp_path: Path) -> None:
    """A diff is shown, and the command that would write."""
    done = run("setup", "docker", "--mirror", mirror, "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f'+    "http://{mirror}"' in done.stdout
    assert "--write" in done.stderr
    assert "systemctl reload docker" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_setup_writes_once_and_takes_back(mirror: str, tmp_path: Path) -> None:
    """The second run has nothing to write; --undo restores, and refuses what was edited since."""
    config = tmp_path / "etc/docker/daemon.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"debug": true}\n')
    command = ("setup", "docker", "--mirror", mirror, "--root", str(tmp_path), "--client-version", "20.10")
    assert run(*command, "--write").returncode == 0
    assert json.loads(config.read_text()) == {"debug": True, "registry-mirrors": [f"http://{mirror}"]}
    again = run(*command, "--write")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to write" in again.stderr
    config.write_text("{}\n")
    undo = ("setup", "docker", "--undo", "--root", str(tmp_path))
    refused = run(*undo)
    assert (refused.returncode, "--force" in refused.stderr) == (1, True)
    assert run(*undo, "--force").returncode == 0
    assert config.read_text() == '{"debug": true}\n'
    assert run(*undo).returncode == 1


def test_setup_of_a_file_that_is_broken_says_so(mirror: str, tmp_path: Path) -> None:
    """The existing file is named, with what to do; nothing is written."""
    config = tmp_path / "etc/docker/daemon.json"
    config.parent.mkdir(parents=True)
    config.write_text("{")
    done = run("setup", "docker", "--mirror", mirror, "--root", str(tmp_path), "--write")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search("daemon.json is not JSON .*mend it first", done.stderr)


def test_setup_finds_the_mirror_of_this_machine(mirror: str, tmp_path: Path) -> None:
    """The configuration of this machine tells where the mirror is, without --mirror."""
    config = tmp_path / "mirror.toml"
    config.write_text(f'[server]\nlisten = ["{mirror}"]\n')
    done = run("setup", "podman", "--config", str(config), "--root", str(tmp_path))
    assert f'location = "{mirror}/docker.io"' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("rkt",), 2, "docker-machine"),
        (("docker", "--write", "--undo"), 2, "exclude"),
        (("docker", "--root", "/none"), 2, "no such folder"),
        (("docker", "--mirror", "127.0.0.1:1"), 1, "registry-mirror serve"),
        (("docker", "--ca", "/none", "--mirror", "https://127.0.0.1:1"), 1, "/none"),
    ],
)
def test_setup_of_wrong_arguments(arguments: tuple[str, ...], status: int, word: str) -> None:
    """A sentence and an exit status, no traceback."""
    done = run("setup", *arguments)
    assert (done.returncode, word in done.stderr, "Traceback" in done.stderr) == (status, True, False), done


def test_setup_of_a_version_that_is_none(mirror: str) -> None:
    """The option's value is named, with an example."""
    done = run("setup", "docker", "--client-version", "new", "--mirror", mirror)
    assert (done.returncode, "not a version, for instance" in done.stderr) == (1, True)


def test_setup_prints_arguments_for_clients_without_a_file(tmp_path: Path) -> None:
    """kaniko's arguments are on standard output, one a line; there is nothing that could be written."""
    with answering(GOOD) as address:
        done = run("setup", "kaniko", "--mirror", address)
        written = run("setup", "kaniko", "--mirror", address, "--write")
    assert done.stdout.splitlines()[0] == f"--registry-mirror={address}/docker.io"
    assert (done.returncode, written.returncode) == (0, 1)
    assert "nothing is written: kaniko has no file for it" in written.stderr


def test_setup_of_a_user_keeps_the_record_in_the_home(mirror: str, tmp_path: Path) -> None:
    """A user who is not root has no /var/lib; with --root the record is below that."""
    if os.geteuid() == 0:
        return
    env = {"HOME": str(tmp_path)}
    file = tmp_path / "docker.json"
    done = run("setup", "docker", "--mirror", mirror, "--file", str(file), "--write", env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".local/state/registry-mirror/setup/docker.json").exists()
