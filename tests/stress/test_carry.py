"""Exports and imports that are killed at random points, and repeated: right, and nothing is left over."""

import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from mirror.bundle.archives.opening import open_archive
from mirror.store.blobs.fsck import HARMLESS, Fsck, FsckCursor
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import X, Y, open_folder, put_image, put_signature
from tests.unit.cli.test_app import run
from tests.unit.manage.carry.bundles import exported

MIB = 1024 * 1024

# Kills of each command; with `--stress N`, N times as many.
KILLS = 10

# Limit of a part, in bytes: the larger layers are cut.
PART = 9 * MIB

IMAGES = ("x:1", "quay.io/org/*")


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with layers larger than a part, and many small ones."""
    path = tmp_path_factory.mktemp("sender") / "cache"
    with closing(open_folder(path)) as folder:
        put_image(folder, X, "1", [random_bytes(25 * MIB, 1), *(b"%d" % each for each in range(200))])
        signed = put_image(folder, Y, "v1", [random_bytes(25 * MIB, 1), random_bytes(10 * MIB, 2)])
        put_signature(folder, Y, signed[0])
    return path


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    found: float = request.config.getoption("--stress")
    return max(KILLS, round(KILLS * found))


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mirror", *map(str, arguments)]


def seconds_of(*arguments: str | Path) -> float:
    """Return the time that a command takes."""
    began = time.monotonic()
    subprocess.run(command(*arguments), check=True, capture_output=True)
    return time.monotonic() - began


def kill_at_random(chance: random.Random, seconds: float, *arguments: str | Path) -> bool:
    """Run a command, and kill it at some time within `seconds`; return whether it was still running."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with process:
        try:
            process.wait(chance.uniform(0.1, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True
        assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    return False


def check(path: Path) -> None:
    """Assert that no file in the store has other bytes than its name says, and no entry is wrong."""
    with closing(CacheDirectory(path)) as folder:
        run = Fsck(folder.path / "blobs", folder.blobs, FsckCursor(), repair=False)
        found = [step.finding for step in run.steps() if step.finding is not None]
    assert [each for each in found if each.damage not in HARMLESS] == []


@pytest.mark.slow
@pytest.mark.timeout(0)  # as long as --stress says
@pytest.mark.parametrize("split", [[], ["--split", str(PART)]], ids=["whole", "parts"])
def test_carry_exports_that_are_killed(sender: Path, tmp_path: Path, kills: int, split: list[str]) -> None:
    """The files are those of an export that nothing interrupted, and no other file is beside them."""
    chance = random.Random(11)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for each in (whole, killed):
        each.mkdir()
    options = ["--cache-dir", str(sender), *split, *IMAGES]
    seconds = seconds_of("export", "-o", whole / "lab.tar", *options)
    count = 0
    for _ in range(kills):
        count += kill_at_random(chance, seconds, "export", "-o", killed / "lab.tar", *options)
        for each in killed.glob("*.tar"):
            if chance.random() < 0.3:
                each.unlink()  # lost on the way: it is made again
    assert count
    subprocess.run(command("export", "-o", killed / "lab.tar", *options), check=True, capture_output=True)
    names = sorted(each.name for each in whole.iterdir())
    assert sorted(each.name for each in killed.iterdir()) == names
    assert all((killed / each).read_bytes() == (whole / each).read_bytes() for each in names)


@pytest.mark.slow
@pytest.mark.timeout(0)  # as long as --stress says
@pytest.mark.parametrize("limit", [0, PART], ids=["whole", "parts"])
def test_carry_imports_that_are_killed(sender: Path, tmp_path: Path, kills: int, limit: int) -> None:
    """After each kill the store is right; the repeated import has all, and leaves nothing in `partial`."""
    chance = random.Random(12)
    with closing(CacheDirectory(sender)) as folder:
        files = exported(folder, tmp_path / "lab.tar", *IMAGES, split=limit)
        (whole,) = exported(folder, tmp_path / "whole.tar", *IMAGES)
    open_folder(tmp_path / "first").close()
    seconds = seconds_of("import", *files, "--cache-dir", tmp_path / "first")
    path, count = tmp_path / "cache", 0
    open_folder(path).close()
    for _ in range(kills):
        chance.shuffle(files)
        count += kill_at_random(chance, seconds, "import", *files, "--cache-dir", path)
        check(path)
        if chance.random() < 0.3:
            run("rm", "*", "--yes", "--cache-dir", str(path))
            run("gc", "--cache-dir", str(path))
    assert count
    done = run("import", *map(str, files), "--cache-dir", str(path))
    assert done.returncode == 0, done.stderr
    with closing(open_folder(path)) as folder:
        assert exported(folder, tmp_path / "again.tar", *IMAGES)[0].read_bytes() == whole.read_bytes()
        assert list(folder.partials.iterdir()) == []
    check(path)
    assert not list((path / "quarantine").glob("*"))
    with open_archive(tmp_path / "again.tar") as archive:
        for content in archive.contents():
            content.verify()
