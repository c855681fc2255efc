"""`import` as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.manage.carry.pieces import LARGEST_CHUNK
from mirror.oci.reference import Repository
from tests.disks import fill_up, tmpfs
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import X, Y, open_folder, put_image
from tests.leftovers import short_folder
from tests.unit.cli.test_app import run
from tests.unit.manage.carry.bundles import exported

pytestmark = pytest.mark.slow

LAYERS = [random_bytes(300_000, 1), random_bytes(400_000, 2)]
NAME = "docker.io/library/x:1"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of one image."""
    folder = open_folder(tmp_path / "sender")
    put_image(folder, X, "1", LAYERS)
    (path,) = exported(folder, tmp_path / "lab.tar", "x:1")
    folder.close()
    return path


@pytest.fixture
def cache(tmp_path: Path) -> str:
    open_folder(tmp_path / "cache").close()
    return str(tmp_path / "cache")


def test_import_and_ls(bundle: Path, cache: str) -> None:
    """The image is complete, with a label; a second import finds it here."""
    done = run("import", str(bundle), "--pin", "--cache-dir", cache)
    assert done.returncode == 0
    assert f"{NAME}: imported, " in done.stdout
    (image,) = json.loads(run("ls", "--cache-dir", cache, "--json").stdout)
    assert (image["complete"], image["pinned"]) == (True, True)
    assert (image["provenance"]["kind"], image["provenance"]["origin"]) == ("imported", "lab.tar")
    assert f"{NAME}: already here" in run("import", str(bundle), "--cache-dir", cache).stdout
    assert json.loads(run("verify", "--cache-dir", cache, "--json").stdout)["wrong"] == 0


def test_import_of_standard_input(bundle: Path, cache: str) -> None:
    """A pipe will do: nothing is read twice."""
    command = [sys.executable, "-m", "mirror", "import", "-", "--cache-dir", cache, "--json"]
    with bundle.open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as pipe:
        done = subprocess.run(command, stdin=pipe.stdout, capture_output=True, check=True, env={**os.environ})
    events = [json.loads(each) for each in done.stdout.splitlines()]
    assert [each["event"] for each in events if each["event"] != "progress"] == ["image", "done", "imported"]
    assert (events[-1]["image"], events[-1]["result"], events[-1]["lacking"]) == (NAME, "imported", {})


def test_import_of_parts(tmp_path: Path, cache: str) -> None:
    """The part that is lacking is named, and the status is 1, until all are here."""
    folder = open_folder(tmp_path / "sender")
    put_image(folder, X, "1", LAYERS)
    first, second = exported(folder, tmp_path / "lab.tar", "x:1", split=450_000)
    folder.close()
    done = run("import", str(second), "--cache-dir", cache)
    assert done.returncode == 1
    assert "import part 1 of the bundle" in done.stderr
    assert run("import", str(first), "--cache-dir", cache).returncode == 0
    assert LARGEST_CHUNK > 450_000


def test_import_of_damage(bundle: Path, cache: str) -> None:
    """The damaged entry is named, and so is what the image lacks."""
    data = bytearray(bundle.read_bytes())
    data[data.index(LAYERS[0]) + 7] ^= 1
    bundle.write_bytes(data)
    done = run("import", str(bundle), "--cache-dir", cache)
    assert done.returncode == 1
    assert "damaged: blobs/sha256/" in done.stderr
    assert f"{NAME}: 1 blob (293 KiB) of it not here yet" in done.stderr
    bundle.write_bytes(data[: len(data) // 2])
    done = run("import", str(bundle), "--cache-dir", cache)
    assert done.returncode == 1
    assert "cut short" in done.stdout + done.stderr


def test_import_that_does_not_fit(bundle: Path, cache: str) -> None:
    """The message has the numbers and what to do, and nothing is kept."""
    env = {"REGISTRY_MIRROR_CACHE_MAX_SIZE": "600kB"}
    done = run("import", str(bundle), "--cache-dir", cache, env=env)
    assert done.returncode == 1
    assert "nothing was imported: 68" in done.stderr
    assert "cache.max_size" in done.stderr
    assert not list(Path(cache, "blobs").rglob("sha256/*/*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")
def test_import_on_a_full_disk(bundle: Path, tmp_path: Path) -> None:
    """The message says that the disk is full; nothing half is kept, and the repeated import is whole."""
    with tmpfs(tmp_path / "disk", 16 * 1024 * 1024) as disk:
        cache = disk / "cache"
        open_folder(cache).close()
        fill_up(disk / "other", 600_000)
        env = {"REGISTRY_MIRROR_CACHE_MIN_FREE": "0"}
        done = run("import", str(bundle), "--cache-dir", str(cache), env=env)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stderr
        assert not [each for each in (cache / "partial").iterdir() if each.stat().st_size]
        (disk / "other").unlink()
        assert run("import", str(bundle), "--cache-dir", str(cache), env=env).returncode == 0


def test_import_refuses_wrong_usage(cache: str, tmp_path: Path) -> None:
    """A file that is not there is said to be so; a name that is needed is asked for."""
    done = run("import", str(tmp_path / "none.tar"), "--cache-dir", cache)
    assert (done.returncode, "cannot be opened" in done.stderr) == (2, True)
    (tmp_path / "text").write_text("no archive" * 100)
    done = run("import", str(tmp_path / "text"), "--cache-dir", cache)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    done = run("import", str(tmp_path / "text"), "--cache-dir", str(tmp_path / "nowhere"))
    assert "registry-mirror serve" in done.stderr


def test_import_of_several_files(bundle: Path, cache: str, tmp_path: Path) -> None:
    """One that cannot be read does not keep the others from being imported."""
    folder = open_folder(tmp_path / "other")
    put_image(folder, Y, "v1", [b"y"])
    (second,) = exported(folder, tmp_path / "second.tar", "*/*")
    folder.close()
    bundle.write_bytes(bundle.read_bytes()[:5000])
    done = run("import", str(bundle), str(second), "--cache-dir", cache)
    assert done.returncode == 1
    assert "quay.io/org/y:v1: imported" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_carry_by_root_on_the_cache_of_another_user(tmp_path: Path) -> None:
    """Root's files and disks are read and written as root, and the cache as its owner."""
    with short_folder() as place:
        place.chmod(0o755)
        (place / "usb").mkdir(mode=0o700)
        folder = open_folder(place / "sender")
        put_image(folder, X, "1", LAYERS)
        folder.close()
        open_folder(place / "cache").close()
        for name in ("sender", "cache"):
            subprocess.run(["chown", "-R", "nobody:", place / name], check=True)
        path = place / "usb" / "lab.tar"
        done = run("export", "-o", str(path), "x:1", "--cache-dir", str(place / "sender"))
        assert (done.returncode, path.owner()) == (0, "root"), done.stderr
        done = run("import", str(path), "--cache-dir", str(place / "cache"))
        assert done.returncode == 0, done.stderr
        assert {each.owner() for each in (place / "cache").rglob("*")} == {"nobody"}
        done = run("import", str(place / "usb"), "--cache-dir", str(place / "cache"))
        assert (done.returncode, "setfacl" in done.stderr) == (1, True)


def test_import_of_a_registry_that_is_not_configured(cache: str, tmp_path: Path) -> None:
    """The images are kept, and a note says that no client can ask for them yet."""
    folder = open_folder(tmp_path / "sender")
    put_image(folder, Repository("registry.lab", "app"), "1", [b"a"])
    (path,) = exported(folder, tmp_path / "lab.tar", "registry.lab/app:1")
    folder.close()
    done = run("import", str(path), "--cache-dir", cache)
    assert (done.returncode, "no upstream is called registry.lab" in done.stderr) == (0, True)
