"""`pin`, `unpin` and `pins` as processes."""

import json
from pathlib import Path

import pytest

from mirror.oci.image_pattern import Pin
from tests.fakes.cached import X, open_folder, put_image
from tests.unit.cli.test_app import run


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """One image."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"a" * 2000])
    folder.close()
    return str(tmp_path / "cache")


def test_pin_and_unpin(cache: str) -> None:
    """Said back in full; listed; and gone."""
    done = run("pin", "x:1", "--cache-dir", cache)
    assert done.returncode == 0
    assert done.stdout.startswith("pinned docker.io/library/x:1: 2.")
    assert done.stderr == ""
    run("pin", "quay.io/org/*:v*", "--platform", "linux/amd64", "--cache-dir", cache)
    pins = json.loads(run("pins", "--cache-dir", cache, "--json").stdout)
    assert [(each["pattern"], each["platforms"], each["from"]) for each in pins] == [
        ("docker.io/library/x:1", [], "command"),
        ("quay.io/org/*:v*", ["linux/amd64"], "command"),
    ]
    assert pins[0]["size"] == pins[0]["here"] > 2000
    assert pins[1]["size"] == 0
    lines = run("pins", "--cache-dir", cache).stdout.splitlines()
    assert [line.split("\t")[:2] for line in lines[1:]] == [
        ["docker.io/library/x:1", "all"],
        ["quay.io/org/*:v*", "linux/amd64"],
    ]
    assert run("unpin", "x:1", "--cache-dir", cache).stdout == "unpinned docker.io/library/x:1\n"
    done = run("unpin", "x:1", "--cache-dir", cache)
    assert done.returncode == 1
    assert "registry-mirror pins" in done.stderr


def test_what_is_not_here_can_be_pinned(cache: str) -> None:
    """It is kept once it is pulled; an upstream that nobody knows is pointed out."""
    done = run("pin", "alpine", "--cache-dir", cache)
    assert "docker.io/library/alpine:latest" in done.stdout
    assert "once it is pulled" in done.stdout
    assert "no upstream is called x.test" in run("pin", "x.test/a", "--cache-dir", cache).stderr


def test_what_is_only_partly_here(cache: str) -> None:
    """It says how much is missing, and how to get it."""
    folder = open_folder(Path(cache))
    image = put_image(folder, X, "1", [b"a" * 2000])
    folder.blobs.remove(image[2])
    folder.close()
    assert "1.95 KiB of it are not here" in run("pin", "x:1", "--cache-dir", cache).stderr


def test_more_than_there_is_room_for(cache: str) -> None:
    """Refused with the numbers, and nothing is pinned."""
    env = {"REGISTRY_MIRROR_CACHE_MAX_SIZE": "1000"}
    done = run("pin", "x:1", "--cache-dir", cache, env=env)
    assert done.returncode == 1
    assert "2." in done.stderr
    assert "0 B that pins use" in done.stderr
    assert "0.977 KiB are allowed" in done.stderr or "1000 B are allowed" in done.stderr
    assert run("pins", "--cache-dir", cache, "--json").stdout == "[]\n"


def test_pins_of_the_configuration(cache: str) -> None:
    """Listed as such, and taken out where they were put in."""
    folder = open_folder(Path(cache))
    folder.configure_pins([Pin.parse("x:1")])
    folder.close()
    (pin,) = json.loads(run("pins", "--cache-dir", cache, "--json").stdout)
    assert pin["from"] == "configuration"
    done = run("unpin", "x:1", "--cache-dir", cache)
    assert done.returncode == 1
    assert "cache.pins" in done.stderr


def test_what_cannot_be_pinned(cache: str) -> None:
    """Exit 2, and what would be right."""
    for arguments in (["pin", "NO"], ["pin", "x", "--platform", "amd64"]):
        done = run(*arguments, "--cache-dir", cache)
        assert done.returncode == 2
        assert "for instance" in done.stderr or "as in" in done.stderr


def test_nothing_is_pinned(cache: str) -> None:
    """It says how to."""
    assert "registry-mirror pin" in run("pins", "--cache-dir", cache).stderr


def test_a_configuration_that_pins_more_than_there_is_room_for(cache: str, tmp_path: Path) -> None:
    """Can be used, and `config check` says that, with the numbers; without a cache nobody knows."""
    file = tmp_path / "mirror.toml"
    for folder, noted in ((cache, True), (str(tmp_path / "none"), False)):
        file.write_text(f'[cache]\ndir = "{folder}"\nmax_size = 1000\npins = ["x:1"]\n')
        done = run("config", "check", str(file))
        assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")
        assert ("pins need 2." in done.stderr) == noted
        assert ("cache.max_size" in done.stderr) == noted
