"""`bundle ls` and `bundle verify` as processes."""

import json
from pathlib import Path

import pytest

from tests.fakes.bundles import random_bytes
from tests.fakes.cached import X, open_folder, put_image
from tests.unit.cli.test_app import run
from tests.unit.manage.carry.bundles import exported

pytestmark = pytest.mark.slow

LAYER = random_bytes(300_000, 1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of one image."""
    folder = open_folder(tmp_path / "sender")
    put_image(folder, X, "1", [LAYER])
    (path,) = exported(folder, tmp_path / "lab.tar", "x:1")
    folder.close()
    return path


def test_bundle_ls(bundle: Path) -> None:
    """A line for each image, and what the file carries."""
    lines = run("bundle", "ls", str(bundle)).stdout.splitlines()
    assert lines[1].startswith("docker.io/library/x:1\t-\t")
    assert lines[2].startswith("3 blobs (293 KiB)")
    report = json.loads(run("bundle", "ls", str(bundle), "--json").stdout)
    assert (report["kind"], report["parts"], report["exact"]) == ("bundle", 1, True)


def test_bundle_verify(bundle: Path) -> None:
    """The status tells; a damaged blob is named, and a file that is cut short is."""
    done = run("bundle", "verify", str(bundle))
    assert (done.returncode, "nothing wrong" in done.stdout) == (0, True)
    data = bytearray(bundle.read_bytes())
    data[data.index(LAYER)] ^= 1
    bundle.write_bytes(data)
    done = run("bundle", "verify", str(bundle))
    assert (done.returncode, "blobs/sha256/" in done.stderr) == (1, True)
    assert len(json.loads(run("bundle", "verify", str(bundle), "--json").stdout)["damaged"]) == 1
    bundle.write_bytes(data[:-2000])
    done = run("bundle", "verify", str(bundle))
    assert (done.returncode, "cut short" in done.stderr) == (1, True)


def test_bundle_of_another_file(tmp_path: Path) -> None:
    """A file that is no archive, or not there, is an error without a traceback."""
    (tmp_path / "text").write_text("no archive" * 100)
    for name in ("text", "none"):
        done = run("bundle", "ls", str(tmp_path / name))
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
