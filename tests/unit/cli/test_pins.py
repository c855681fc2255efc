"""`pin`, `unpin` and `pins` as processes."""

import json
from pathlib import Path

import pytest

from mirror.oci.image_pattern import Pin
from tests.fakes.cached import X, Y, open_folder, put_blob, put_image, put_index, put_manifest
from tests.fakes.content import image_manifest
from tests.unit.cli.test_app import run


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """One image."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"a" * 2000])
    folder.close()
    return str(tmp_path / "cache")


def test_pin_and_unpin(cache: str) -> None:
    """A pin is printed in full, listed, and removed."""
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


def test_pin_of_an_image_that_is_not_here(cache: str) -> None:
    """An image is kept once it is pulled; an unknown upstream is pointed out."""
    done = run("pin", "alpine", "--cache-dir", cache)
    assert "docker.io/library/alpine:latest" in done.stdout
    assert "once it is pulled" in done.stdout
    assert "no upstream is called x.test" in run("pin", "x.test/a", "--cache-dir", cache).stderr


def test_pin_of_an_image_without_some_blobs(cache: str) -> None:
    """A message says how much is missing, and how it comes."""
    folder = open_folder(Path(cache))
    image = put_image(folder, X, "1", [b"a" * 2000])
    folder.blobs.remove(image[2])
    folder.close()
    assert "1.95 KiB of it are not here" in run("pin", "x:1", "--cache-dir", cache).stderr


def test_pin_refuses_more_than_there_is_room_for(cache: str) -> None:
    """The message has the numbers, and nothing is pinned."""
    env = {"REGISTRY_MIRROR_CACHE_MAX_SIZE": "1000"}
    done = run("pin", "x:1", "--cache-dir", cache, env=env)
    assert done.returncode == 1
    assert "2." in done.stderr
    assert "0 B that pins use" in done.stderr
    assert "0.977 KiB are allowed" in done.stderr or "1000 B are allowed" in done.stderr
    assert run("pins", "--cache-dir", cache, "--json").stdout == "[]\n"


def test_pins_lists_those_of_the_configuration(cache: str) -> None:
    """The list says so, and unpin names the option."""
    folder = open_folder(Path(cache))
    folder.pinning.configure_pins([Pin.parse("x:1")])
    folder.close()
    (pin,) = json.loads(run("pins", "--cache-dir", cache, "--json").stdout)
    assert pin["from"] == "configuration"
    done = run("unpin", "x:1", "--cache-dir", cache)
    assert done.returncode == 1
    assert "cache.pins" in done.stderr


def test_pin_refuses_what_is_no_image(cache: str) -> None:
    """Exit 2, and what would be right."""
    for arguments in (["pin", "NO"], ["pin", "x", "--platform", "amd64"]):
        done = run(*arguments, "--cache-dir", cache)
        assert done.returncode == 2
        assert "for instance" in done.stderr or "as in" in done.stderr


def test_pins_without_any_pin(cache: str) -> None:
    """A message says how to pin."""
    assert "registry-mirror pin" in run("pins", "--cache-dir", cache).stderr


def test_config_check_warns_of_pins_that_need_more_than_there_is_room_for(cache: str, tmp_path: Path) -> None:
    """The configuration can be used, and the note has the numbers; without a cache there is no note."""
    file = tmp_path / "mirror.toml"
    for folder, noted in ((cache, True), (str(tmp_path / "none"), False)):
        file.write_text(f'[cache]\ndir = "{folder}"\nmax_size = 1000\npins = ["x:1"]\n')
        done = run("config", "check", str(file))
        assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")
        assert ("pins need 2." in done.stderr) == noted
        assert ("Raise cache.max_size" in done.stderr) == noted


def test_pin_says_which_platforms_are_not_here(cache: str) -> None:
    """The messages have the command that fetches each platform, and the one that pins less."""
    folder = open_folder(Path(cache))
    put_index(folder, Y, "1", [[b"0"], [b"1"]])
    put_manifest(folder, Y, image_manifest(b"config1", [b"1"]))
    for data in (b"config1", b"1"):
        put_blob(folder, data)
    folder.close()
    assert state(cache) == "complete"
    said = run("pin", "quay.io/org/y:1", "--cache-dir", cache, "--config", "").stderr.splitlines()
    assert said == [
        "linux/arch0 is not here: docker pull --platform linux/arch0 127.0.0.1:5000/quay.io/org/y:1",
        "To pin only what is here: registry-mirror pin quay.io/org/y:1 --platform linux/arch1",
    ]
    assert state(cache) == "linux/arch0 missing, pinned"
    (image,) = json.loads(run("ls", "quay.io", "--cache-dir", cache, "--json").stdout)
    assert (image["complete"], image["missing_platforms"]) == (False, ["linux/arch0"])
    assert run("pin", "quay.io/org/y:1", "--platform", "linux/arch1", "--cache-dir", cache).stderr == ""
    assert state(cache) == "complete, pinned"


def state(cache: str) -> str:
    """Return what `ls` says of the image of quay.io."""
    return run("ls", "quay.io", "--cache-dir", cache).stdout.splitlines()[1].split("\t")[-1]


def test_pin_of_a_registry_pins_all_its_images(cache: str) -> None:
    """The command unpin takes the same name."""
    assert run("pin", "docker.io", "--cache-dir", cache).stdout.startswith("pinned docker.io/*:*: 2.")
    assert run("unpin", "docker.io", "--cache-dir", cache).stdout == "unpinned docker.io/*:*\n"


def test_pin_with_the_address_of_the_mirror(cache: str) -> None:
    """The address, which `docker pull` needs, is no part of the image's name."""
    for name in ("127.0.0.1:5000/docker.io/library/x:1", "mirror.lan:80/docker.io/x:1", "localhost:5000/x:1"):
        done = run("pin", name, "--cache-dir", cache)
        assert done.stdout.startswith("pinned docker.io/library/x:1: ")
        assert done.stderr == ""
    assert "docker.io/library/x:1" in run("ls", "127.0.0.1:5000/docker.io", "--cache-dir", cache).stdout


def test_pin_notes_a_misspelt_architecture(cache: str) -> None:
    """A typing mistake would keep nothing."""
    done = run("pin", "x:1", "--platform", "linux/amd46", "--cache-dir", cache)
    assert done.returncode == 0
    assert "Note: linux/amd46: did you mean amd64?" in done.stderr
