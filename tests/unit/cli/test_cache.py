"""`ls`, `rm`, `du` and `gc` as processes, beside a mirror that runs or without one."""

import json
from pathlib import Path

import pytest

from tests.fakes.cached import X, Y, open_folder, put_blob, put_image
from tests.unit.cli.test_app import run


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """Two images that share a layer, and one of another upstream."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"a" * 2000, b"b" * 3000])
    put_image(folder, X, "2", [b"a" * 2000])
    put_image(folder, Y, "1", [b"c" * 1000])
    folder.close()
    return str(tmp_path / "cache")


def test_ls(cache: str) -> None:
    """A line for each image, for programs and for people; or JSON with all there is to know."""
    done = run("ls", "--cache-dir", cache)
    head, *lines = (line.split("\t") for line in done.stdout.splitlines())
    assert head == ["IMAGE", "PLATFORMS", "SIZE", "SHARED", "LAST USED", "STATE"]
    assert [line[0] for line in lines] == [
        "docker.io/library/x:1",
        "docker.io/library/x:2",
        "quay.io/org/y:1",
    ]
    assert lines[0][1] == "linux/amd64"
    assert lines[0][5] == "complete"
    (image,) = json.loads(run("ls", "x:1", "--cache-dir", cache, "--json").stdout)
    assert (image["repository"], image["tag"], image["platforms"]) == ("library/x", "1", ["linux/amd64"])
    assert (image["complete"], image["missing"], image["pinned"]) == (True, [], False)
    assert image["size"] > 5000 > image["shared"] > 2000
    assert run("ls", "quay.io/*", "--cache-dir", cache).stdout.count("\n") == 2


def test_nothing_to_list(cache: str, tmp_path: Path) -> None:
    """It says so; and where there is no cache, what to do."""
    done = run("ls", "z", "--cache-dir", cache)
    assert (done.returncode, done.stdout) == (0, "")
    assert "docker.io/library/z:*" in done.stderr
    assert run("ls", "z", "--cache-dir", cache, "--json").stdout == "[]\n"
    done = run("ls", "--cache-dir", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "registry-mirror serve" in done.stderr
    assert not (tmp_path / "none").exists()
    done = run("ls", "NOT:A:NAME", "--cache-dir", cache)
    assert done.returncode == 2
    assert "'NOT" in done.stderr


def test_rm(cache: str) -> None:
    """Not without being sure; then the image, and what only it needs."""
    done = run("rm", "x:1", "--cache-dir", cache, "--dry-run")
    assert done.returncode == 0
    assert "would remove docker.io/library/x:1" in done.stdout
    done = run("rm", "x:1", "--cache-dir", cache)
    assert done.returncode == 1
    assert "--yes" in done.stderr
    done = run("rm", "x:1", "--cache-dir", cache, "--yes")
    assert (done.returncode, done.stdout) == (0, "removed docker.io/library/x:1\n")
    assert "1 image, 3." in done.stderr
    left = [image["image"] for image in json.loads(run("ls", "--cache-dir", cache, "--json").stdout)]
    assert left == ["docker.io/library/x:2", "quay.io/org/y:1"]
    done = run("rm", "x:1", "--cache-dir", cache, "--yes")
    assert done.returncode == 1
    assert "nothing here matches" in done.stderr


def test_rm_of_what_is_pinned(cache: str) -> None:
    """Refused, with what to do; --force does it."""
    run("pin", "x:1", "--cache-dir", cache)
    done = run("rm", "x:1", "--cache-dir", cache, "--yes")
    assert done.returncode == 1
    assert "unpin" in done.stderr
    done = run("rm", "x:*", "--cache-dir", cache, "--yes")
    assert (done.returncode, done.stdout) == (0, "removed docker.io/library/x:2\n")
    assert run("rm", "x:1", "--cache-dir", cache, "--yes", "--force").returncode == 0


def test_du(cache: str) -> None:
    """By repository and upstream, and in total."""
    done = run("du", "--cache-dir", cache)
    names = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert names == ["NAME", "docker.io/library/x", "docker.io/*", "quay.io/org/y", "quay.io/*"]
    assert "blobs" in done.stderr
    found = json.loads(run("du", "--cache-dir", cache, "--json").stdout)
    assert [each.get("upstream") for each in found["shares"]] == [None, "docker.io", None, "quay.io"]
    assert sum(each["size"] for each in found["shares"] if "upstream" in each) == found["blobs"]


def test_gc(cache: str) -> None:
    """What goes, by kind; nothing when there is nothing."""
    done = run("gc", "--cache-dir", cache)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no garbage" in done.stderr
    folder = open_folder(Path(cache))
    digest = put_blob(folder, b"of nobody")
    folder.blobs.touch({digest: 1.0})
    folder.close()
    found = json.loads(run("gc", "--cache-dir", cache, "--dry-run", "--json").stdout)
    assert found == {"dry_run": True, "removed": {"blob of no repository": {"count": 1, "size": 9}}}
    done = run("gc", "--cache-dir", cache)
    assert done.stdout == "WHAT\tCOUNT\tSIZE\nblob of no repository\t1\t9 B\n"
    assert "9 B freed" in done.stderr


@pytest.mark.parametrize("command", ["ls", "rm", "du", "gc"])
def test_help_teaches(command: str) -> None:
    """Options and examples."""
    text = run(command, "--help").stdout
    assert "--cache-dir" in text
    assert command in ("du", "gc") or f"      registry-mirror {command} " in text
