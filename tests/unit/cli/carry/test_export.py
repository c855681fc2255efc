"""`have` and `export` as processes."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mirror.bundle import document
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import X, Y, open_folder, put_image, put_index
from tests.unit.cli.test_app import run

pytestmark = pytest.mark.slow

LAYERS = [random_bytes(300_000, 1), random_bytes(400_000, 2)]


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """Two images that share a layer."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", LAYERS)
    put_image(folder, Y, "v1", LAYERS[:1])
    folder.close()
    return str(tmp_path / "cache")


def test_export_writes_a_file(cache: str, tmp_path: Path) -> None:
    """The file can be listed; the same command finds it complete, and another one replaces it."""
    path = tmp_path / "lab.tar"
    done = run("export", "-o", str(path), "x:1", "quay.io", "--cache-dir", cache)
    assert (done.returncode, done.stdout) == (0, f"lab.tar: done, {_mib(path)}\n")
    again = run("export", "-o", str(path), "x:1", "quay.io", "--cache-dir", cache, "--json")
    assert [(each["event"], each.get("result")) for each in map(json.loads, again.stdout.splitlines())] == [
        ("image", "present"),
        ("done", None),
    ]
    listed = json.loads(run("bundle", "ls", str(path), "--json").stdout)
    assert [each["name"] for each in listed["images"]] == ["docker.io/library/x:1", "quay.io/org/y:v1"]
    assert run("export", "-o", str(path), "x:1", "--cache-dir", cache).returncode == 0
    listed = json.loads(run("bundle", "ls", str(path), "--json").stdout)
    assert len(listed["images"]) == 1


def _mib(path: Path) -> str:
    return f"{path.stat().st_size / 1024:.0f} KiB"


def test_export_to_standard_output(cache: str, tmp_path: Path) -> None:
    """The bytes are those of the file."""
    path = tmp_path / "lab.tar"
    run("export", "-o", str(path), "x:1", "--cache-dir", cache)
    command = [sys.executable, "-m", "mirror", "export", "-o", "-", "x:1", "--cache-dir", cache]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ})
    assert done.stdout == path.read_bytes()


def test_export_replaces_no_pipe_device_or_link(cache: str, tmp_path: Path) -> None:
    """`-o /dev/null` by root is a device less on the machine, and `-o /dev/stdout` a link."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    for place in (pipe, link):
        done = run("export", "-o", str(place), "x:1", "--cache-dir", cache)
        assert done.returncode == 2
        assert f"{place} is a device, a pipe or a link: name a file, or - for standard output" in done.stderr
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_export_refuses_what_is_missing(cache: str, tmp_path: Path) -> None:
    """Each missing thing is named; nothing is written unless the rest is asked for."""
    folder = open_folder(Path(cache))
    index = put_index(folder, X, "2", [[b"a"]])
    folder.close()
    path = tmp_path / "lab.tar"
    arguments = ("export", "-o", str(path), "x:1", "x:2", "x:3", "--cache-dir", cache)
    done = run(*arguments)
    assert (done.returncode, path.exists()) == (1, False)
    assert "docker.io/library/x:2: each platform is not here" in done.stderr
    assert "docker.io/library/x:3: nothing of it is here" in done.stderr
    assert "2 things are missing, nothing is exported" in done.stderr
    events = [json.loads(each) for each in run(*arguments, "--json").stdout.splitlines()]
    assert [(each["event"], each["kind"], each["digest"]) for each in events] == [
        ("missing", "platform", str(index)),
        ("missing", "image", ""),
    ]
    assert run(*arguments, "--allow-missing").returncode == 1
    assert path.exists()


def test_export_of_what_is_lacking(cache: str, tmp_path: Path) -> None:
    """The receiver's list, an older bundle, or another program's archive says what need not be carried."""
    base, delta, foreign = tmp_path / "base.tar", tmp_path / "delta.tar", tmp_path / "foreign.tar"
    assert run("export", "-o", str(base), "quay.io", "--cache-dir", cache).returncode == 0
    have = tmp_path / "have.txt"
    other = open_folder(tmp_path / "other")
    put_image(other, Y, "v1", LAYERS[:1])
    other.close()
    have.write_text(run("have", "--cache-dir", str(tmp_path / "other")).stdout)
    with tarfile.open(base) as old, tarfile.open(foreign, "w") as new:
        for member in old:
            if member.name != document.NAME:
                new.addfile(member, old.extractfile(member))
    sizes = []
    for option in (["--lacking", str(have)], ["--since", str(base)], ["--since", str(foreign)]):
        assert run("export", "-o", str(delta), "x:1", *option, "--cache-dir", cache).returncode == 0
        sizes.append(delta.stat().st_size)
        delta.unlink()
    assert all(400_000 < each < 420_000 for each in sizes)


def test_export_in_parts(cache: str, tmp_path: Path) -> None:
    """Each part is smaller than the limit; a lost one is made again alone, with the same bytes."""
    arguments = ("export", "-o", str(tmp_path / "lab.tar"), "x:1", "--split", "450kB", "--cache-dir", cache)
    assert run(*arguments).returncode == 0
    parts = sorted(tmp_path.glob("lab.*-of-2.tar"))
    assert [each.stat().st_size < 450_000 for each in parts] == [True, True]
    lost = parts[1].read_bytes()
    parts[1].unlink()
    assert run(*arguments, "--part", "2").returncode == 0
    assert parts[1].read_bytes() == lost
    assert run(*arguments, "--part", "3").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "-", "--split", "1MB", "x:1"], "--part"),
        (["-o", "lab.tar", "--part", "1", "x:1"], "--split"),
        (["-o", "lab.tar", "--split", "many", "x:1"], "4GiB"),
        (["-o", "none/lab.tar", "x:1"], "no folder"),
        (["-o", ".", "x:1"], "is a folder"),
        (["-o", "lab.tar", "x:1", "--platform", "linux"], "not a platform"),
        (["-o", "lab.tar", "x:1", "--lacking", "none"], "cannot be read"),
    ],
)
def test_export_refuses_wrong_usage(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """The message says what is wrong, and the status is 2."""
    monkeypatch.chdir(tmp_path)
    done = run("export", *arguments, "--cache-dir", cache)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not list(tmp_path.glob("lab*"))


def test_export_since_what_is_no_archive(cache: str, tmp_path: Path) -> None:
    done = run("export", "-o", str(tmp_path / "lab.tar"), "x:1", "--since", "/dev/null", "--cache-dir", cache)
    assert (done.returncode, "/dev/null: the archive is cut short" in done.stderr) == (1, True)


def test_export_of_a_list_that_is_none(cache: str, tmp_path: Path) -> None:
    """A file that is no list is named as what it is not."""
    wrong = tmp_path / "have.txt"
    wrong.write_text("something else\n")
    done = run(
        "export", "-o", str(tmp_path / "lab.tar"), "x:1", "--lacking", str(wrong), "--cache-dir", cache
    )
    assert (done.returncode, "registry-mirror have" in done.stderr) == (1, True)


def test_export_of_a_blob_that_is_wrong_on_the_disk(cache: str, tmp_path: Path) -> None:
    """The blob goes to quarantine, and the message says what to do."""
    (file,) = [each for each in Path(cache, "blobs").rglob("*.*") if each.stat().st_size == 400_000]
    file.chmod(0o600)
    file.write_bytes(b"?" * 400_000)
    done = run("export", "-o", str(tmp_path / "lab.tar"), "x:1", "--cache-dir", cache)
    assert (done.returncode, "quarantine" in done.stderr) == (1, True)
    assert not file.exists()
    assert not (tmp_path / "lab.tar").exists()
    done = run("export", "-o", str(tmp_path / "lab.tar"), "x:1", "--cache-dir", cache)
    assert "is not here" in done.stderr
