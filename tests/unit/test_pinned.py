"""Pinned clients: the list of `.ci/clients`, and what the script does when a client cannot be made."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.pinned import SCRIPT, missing, pinned

# Programs that the script itself runs.
TOOLS = ("bash", "chmod", "cp", "dirname", "flock", "mkdir", "mv", "nice", "rm", "sed", "tail", "timeout")


def run(cache: Path, tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with no program but these tools, and with its cache in `cache`."""
    env = {"PATH": str(tools), "XDG_CACHE_HOME": str(cache), "HOME": str(cache)}
    return subprocess.run([SCRIPT, *arguments], env=env, capture_output=True, text=True, check=False)


def tools(folder: Path) -> Path:
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def test_pinned_clients_are_listed_with_version_and_folder() -> None:
    """The folder of a client has its version, so that another version is another folder."""
    for name, client in pinned().items():
        assert client.folder.name == f"{name}-{client.version}"
    assert {
        "containerd",
        "buildkit",
        "dockerd",
        "crane",
        "oras",
        "helm",
        "cosign",
        "regctl",
    } <= pinned().keys()
    assert all(not client.installed for client in missing())


def test_clients_that_cannot_be_made_are_named_and_fail_nothing(tmp_path: Path) -> None:
    """Every client is named with the reason, and the exit status is 0, where no build tool is there."""
    done = run(tmp_path / "cache", tools(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    named = [line for line in done.stdout.splitlines() if line.startswith("could not be made: ")]
    assert len(named) == len(pinned())
    for client, line in zip(pinned().values(), named, strict=True):
        assert f"{client}: " in line
        assert "not found" in line


def test_clients_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    """A second run makes nothing, and the programs needed for it may be gone."""
    for client in pinned().values():
        (tmp_path / "cache/registry-mirror/clients" / client.folder.name).mkdir(parents=True)
    done = run(tmp_path / "cache", tools(tmp_path / "bin"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert os.listdir(tmp_path / "cache/registry-mirror/clients/") != []
