"""Commands about hosted images: export into a bundle and back, pins, lists, removal."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.hosted.test_copying import TWO, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path)
    assert found.run("copy", str(found.bundle), "office/", "--referrers").returncode == 0
    return found


def test_export_of_hosted_images_comes_back_into_a_hosted_registry(scene: Scene, tmp_path: Path) -> None:
    bundle = tmp_path / "office.tar"
    done = scene.run("export", "-o", str(bundle), "office/org/app:1")
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other"
    other.mkdir()
    second = Scene(other)
    done = second.run("import", str(bundle))
    assert done.returncode == 0, done.stderr
    assert second.tag("org/app", "1") == second.roots[TWO]
    assert second.held() > 70_000
    assert second.run("copy", str(bundle), "office/again/", "--referrers").returncode == 0
    assert second.tag("again/org/app", "1") == second.roots[TWO]
    assert second.run("verify").returncode == 0
    found = second.run("gc")
    assert found.returncode == 0, found.stderr
    assert second.tag("org/app", "1") == second.roots[TWO]


def test_hosted_images_are_listed_pinned_measured_and_removed(scene: Scene) -> None:
    listed = json.loads(scene.run("ls", "office/*", "--json").stdout)
    assert {each["image"] for each in listed} >= {"office/org/app:1", "office/library/one:2"}
    assert "office" in scene.run("du").stdout
    pinned = scene.run("pin", "office/org/app:1")
    assert pinned.returncode == 0, pinned.stderr
    assert "office/org/app" in scene.run("pins").stdout
    assert scene.run("unpin", "office/org/app:1").returncode == 0
    gone = scene.run("rm", "office/org/app:1", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert scene.tag("org/app", "1") is None
    assert scene.tag("library/one", "2") is not None
    assert scene.run("verify").returncode == 0


def test_removal_queues_no_layers_for_the_targets_of_replication(scene: Scene) -> None:
    """A target is asked to delete tags and manifests: layers go with these."""
    with Path(scene.place[1]).open("a") as file:
        file.write("[[hosted.mirror_to]]\nurl = 'http://127.0.0.1:9'\n")
    gone = scene.run("rm", "office/org/app:1", "--yes")
    assert gone.returncode == 0, gone.stderr
    found = [json.loads(each.read_text()) for each in (scene.cache / "replication").rglob("*.json")]
    queued = {each["reference"] for each in found}
    assert {"1", str(scene.roots[TWO])} <= queued
    assert not queued & set(map(str, scene.shelf.blobs))
