"""`ls`, `rm`, `du` and `gc` as processes, beside a mirror that runs or without one."""

import json
from pathlib import Path

import pytest

from mirror.store.blobs.fsck import CURSOR, FsckCursor
from tests.fakes.cached import X, Y, open_folder, put_blob, put_image
from tests.unit.cli.terminal import on_terminal
from tests.unit.cli.test_app import run
from tests.unit.manage.test_quota_excess import leave_partial


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """Two images that share a layer, and one of another upstream."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"a" * 2000, b"b" * 3000])
    put_image(folder, X, "2", [b"a" * 2000])
    put_image(folder, Y, "1", [b"c" * 1000])
    folder.close()
    return str(tmp_path / "cache")


def test_ls_lists_images(cache: str) -> None:
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


def test_ls_without_a_match(cache: str, tmp_path: Path) -> None:
    """A message says so; without a cache it says what to do."""
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


def test_rm_removes_an_image(cache: str) -> None:
    """Not without a confirmation; then the image goes, and the blobs that only it needs."""
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


def test_rm_refuses_pinned_images(cache: str) -> None:
    """The message says what to do; --force removes them."""
    run("pin", "x:1", "--cache-dir", cache)
    done = run("rm", "x:1", "--cache-dir", cache, "--yes")
    assert done.returncode == 1
    assert "unpin" in done.stderr
    done = run("rm", "x:*", "--cache-dir", cache, "--yes")
    assert (done.returncode, done.stdout) == (0, "removed docker.io/library/x:2\n")
    assert run("rm", "x:1", "--cache-dir", cache, "--yes", "--force").returncode == 0


def test_du_counts_by_repository_and_upstream(cache: str) -> None:
    """Each repository, each upstream, and the total."""
    done = run("du", "--cache-dir", cache)
    names = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert names == ["NAME", "docker.io/library/x", "docker.io/*", "quay.io/org/y", "quay.io/*"]
    assert "blobs" in done.stderr
    found = json.loads(run("du", "--cache-dir", cache, "--json").stdout)
    assert [each.get("upstream") for each in found["shares"]] == [None, "docker.io", None, "quay.io"]
    assert sum(each["size"] for each in found["shares"] if "upstream" in each) == found["blobs"]


def test_du_shows_the_share_of_a_rule(cache: str, tmp_path: Path) -> None:
    """One more column where a rule limits a repository, and more keys."""
    file = tmp_path / "rules.toml"
    file.write_text('[[cache.rules]]\nrepositories = "quay.io/*"\nmax_share = "2MiB"\n')
    done = run("du", "--config", str(file), "--cache-dir", cache)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0][-1] == "OF ITS SHARE"
    assert {row[0]: row[-1].endswith(" of 2 MiB") for row in rows[1:]} == {
        "docker.io/library/x": False,
        "docker.io/*": False,
        "quay.io/org/y": True,
        "quay.io/*": False,
    }
    found = json.loads(run("du", "--config", str(file), "--cache-dir", cache, "--json").stdout)
    assert [each.get("max_share") for each in found["shares"]] == [None, None, 2 * 1024**2, None]


def test_gc_removes_garbage(cache: str) -> None:
    """Counts and bytes by kind; a message if there is no garbage."""
    done = run("gc", "--cache-dir", cache)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no garbage" in done.stderr
    folder = open_folder(Path(cache))
    digest = put_blob(folder, b"of nobody")
    folder.blobs.table.touch({digest: 1.0})
    folder.close()
    found = json.loads(run("gc", "--cache-dir", cache, "--dry-run", "--json").stdout)
    assert found == {
        "dry_run": True,
        "removed": {"blob of no repository": {"count": 1, "size": 9}},
        "foreign": [],
    }
    done = run("gc", "--cache-dir", cache)
    assert done.stdout == "WHAT\tCOUNT\tSIZE\nblob of no repository\t1\t9 B\n"
    assert "9 B freed" in done.stderr


@pytest.mark.parametrize("command", ["ls", "rm", "du", "gc"])
def test_help_has_examples(command: str) -> None:
    """Options and examples."""
    text = run(command, "--help").stdout
    assert "--cache-dir" in text
    assert f"      registry-mirror {command} " in text


def test_ls_of_a_registry_lists_all_its_images(cache: str) -> None:
    """The bare name of an upstream, or an alias of it, is no image of Docker Hub."""
    assert run("ls", "quay.io", "--cache-dir", cache).stdout.splitlines()[1].startswith("quay.io/org/y:1\t")
    assert run("ls", "index.docker.io", "--cache-dir", cache).stdout.count("\n") == 3


def test_ls_on_a_terminal_never_wraps_a_name(cache: str) -> None:
    """At 40 columns the less important ones are left out."""
    shown = on_terminal(40, "ls", "--cache-dir", cache)
    assert [[line.split()[0], line.split()[-1]] for line in shown] == [
        ["IMAGE", "STATE"],
        ["docker.io/library/x:1", "complete"],
        ["docker.io/library/x:2", "complete"],
        ["quay.io/org/y:1", "complete"],
    ]
    assert shown[0].split() == ["IMAGE", "SIZE", "STATE"]


def test_rm_prints_json(cache: str) -> None:
    """Programs cannot be asked; exit status 1 if no image matches."""
    done = run("rm", "x:1", "--cache-dir", cache, "--json")
    assert (done.returncode, "--dry-run" in done.stderr) == (2, True)
    run("pin", "x:2", "--cache-dir", cache)
    planned = json.loads(run("rm", "x:*", "--cache-dir", cache, "--json", "--dry-run").stdout)
    removed = json.loads(run("rm", "x:*", "--cache-dir", cache, "--json", "--yes").stdout)
    assert planned == {**removed, "dry_run": True}
    assert (removed["removed"], removed["pinned"]) == (["docker.io/library/x:1"], ["docker.io/library/x:2"])
    assert removed["freed"] > 3000
    assert run("rm", "z", "--cache-dir", cache, "--json", "--yes").returncode == 1


def test_du_of_a_pattern_counts_what_matches(cache: str) -> None:
    """Only the repositories of that name, and no upstream of which the rest would be missing."""
    done = run("du", "quay.io", "--cache-dir", cache)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["NAME", "quay.io/org/y"]
    assert "No repository here matches z." in run("du", "z", "--cache-dir", cache).stderr


def test_gc_names_foreign_files_and_goes_on(cache: str) -> None:
    """A file where folders are expected is no reason to stop."""
    strange = Path(cache, "blobs", "sha256", "strange")
    strange.write_bytes(b"x")
    done = run("gc", "--cache-dir", cache)
    assert (done.returncode, f"not touched: {strange}" in done.stderr) == (0, True)
    assert json.loads(run("gc", "--cache-dir", cache, "--json").stdout)["foreign"] == [str(strange)]


def test_gc_does_what_its_dry_run_said(tmp_path: Path) -> None:
    """An interrupted download above the quota goes, and the images stay."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"a" * 2000])
    leave_partial(folder, b"large", 2_000_000, 1_500_000, 60.0)
    folder.close()
    env = {"REGISTRY_MIRROR_CACHE_MAX_SIZE": "500000", "REGISTRY_MIRROR_CACHE_MIN_FREE": "0"}
    said, done = (
        json.loads(run("gc", "--cache-dir", str(folder.path), "--json", *more, env=env).stdout)["removed"]
        for more in (["--dry-run"], [])
    )
    assert said == done
    assert list(done) == ["interrupted download"]
    assert "1\t" in run("ls", "--cache-dir", str(folder.path)).stdout
    assert "no garbage" in run("gc", "--cache-dir", str(folder.path), env=env).stderr


def test_gc_says_what_it_could_not_free(cache: str) -> None:
    """Pinned blobs stay, although they exceed the quota."""
    run("pin", "x:1", "--cache-dir", cache)
    env = {"REGISTRY_MIRROR_CACHE_MAX_SIZE": "2000"}
    assert "over the quota: pinned" in run("gc", "--cache-dir", cache, env=env).stderr
    assert "docker.io/library/x:1\t" in run("ls", "--cache-dir", cache).stdout


def test_gc_names_a_reserve_that_leaves_no_room(tmp_path: Path) -> None:
    """An empty cache pins nothing: the cause is cache.min_free."""
    open_folder(tmp_path / "cache").close()
    env = {"REGISTRY_MIRROR_CACHE_MIN_FREE": "100%"}
    done = run("gc", "--cache-dir", str(tmp_path / "cache"), env=env)
    assert done.returncode == 0
    assert "cache.min_free" in done.stderr
    assert "pinned" not in done.stderr


def test_du_tells_the_progress_of_the_scrub(cache: str) -> None:
    """Share of the pass, or the day on which the last one ended; nothing before the first one."""
    assert "Scrub" not in run("du", "--cache-dir", cache).stderr
    for cursor, line in (
        (FsckCursor(bytes=1, total=4), "Scrub: 25% of this pass; 0 wrong."),
        (FsckCursor(wrong=1, ended=1e9), "; 1 wrong."),
    ):
        cursor.save(Path(cache) / CURSOR)
        done = run("du", "--cache-dir", cache)
        assert line in done.stdout + done.stderr


def test_du_says_when_nothing_will_be_kept(cache: str) -> None:
    """A quota that leaves no room is named, with the option to change."""
    done = run("du", "--cache-dir", cache, env={"REGISTRY_MIRROR_CACHE_MIN_FREE": "100%"})
    assert done.returncode == 0
    assert "nothing will be kept" in done.stderr
    assert "cache.min_free" in done.stderr
