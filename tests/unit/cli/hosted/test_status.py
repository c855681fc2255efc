"""`hosted status`: what waits for others, also of commands, and why it was not taken."""

import json
from pathlib import Path

from tests.unit.cli.hosted.test_copying import Scene
from tests.unit.cli.test_app import run


def test_status_shows_what_commands_have_queued(tmp_path: Path) -> None:
    target = "[[hosted.mirror_to]]\nurl = 'https://backup.lan'\nrepositories = ['org/*']\n"
    scene = Scene(tmp_path, target)
    assert scene.run("copy", str(scene.bundle), "office/").returncode == 0
    assert scene.run("retag", "office/org/app:1", "office/org/app:2").returncode == 0
    (found,) = json.loads(scene.run("hosted", "status", "--json").stdout)
    assert found["name"] == "office"
    assert found["bytes"] > 300_000
    (there,) = found["mirror_to"]
    assert (there["url"], there["waiting"], there["attempts"]) == ("https://backup.lan", 2, 0)
    assert "https://backup.lan: 2 wait since" in scene.run("hosted", "status").stdout


def test_status_without_hosted_registries_says_so(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    done = run("hosted", "status", "--config", "", "--cache-dir", str(scene.cache))
    assert done.returncode == 1
    assert "no [[hosted]]" in done.stderr
