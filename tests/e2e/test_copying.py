"""`copy` with programs of others: docker-registry as the target, skopeo reads back, byte for byte."""

import json
import subprocess
from pathlib import Path

import pytest

from mirror.bundle.plan import make_plan
from mirror.oci.digest import Digest
from tests.e2e.origin import unprotected
from tests.fakes.bundles import Shelf
from tests.programs import program
from tests.unit.cli.test_app import run

pytestmark = [pytest.mark.needs("docker-registry", "skopeo")]


def skopeo(*arguments: str) -> bytes:
    command = [program("skopeo"), "--insecure-policy", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def test_copy_to_docker_registry_is_read_back_by_skopeo(tmp_path: Path) -> None:
    """An index with a signature: by the referrers tag, since this registry has no list of referrers."""
    shelf = Shelf()
    layers = {each: shelf.runnable({each: each.encode() * 1000}, each) for each in ("amd64", "arm64")}
    index = shelf.index(layers)
    signed = shelf.referrer(index, b"signature")
    bundle = tmp_path / "lab.tar"
    bundle.write_bytes(shelf.written(make_plan(shelf.contents({"quay.io/org/app:1": index}))))
    storage = tmp_path / "storage"
    storage.mkdir()
    place = ("--config", "", "--cache-dir", str(tmp_path / "cache"))
    with unprotected(storage, tmp_path) as url:
        there = url.removeprefix("http://")
        for expected in ("done", "already here"):
            done = run("copy", str(bundle), f"{there}/", "--referrers", *place)
            assert (done.returncode, done.stderr) == (0, "")
            assert expected in done.stdout
        further = run("copy", f"{there}/org/app:1", f"{there}/copied/app:2", "--referrers", *place)
        assert further.returncode == 0
        for name in ("org/app:1", "copied/app:2"):
            source = f"docker://{there}/{name}"
            raw = skopeo("inspect", "--raw", "--tls-verify=false", source)
            assert Digest.of(raw) == index.digest
            tag = f"{source.rpartition(':')[0]}:{str(index.digest).replace(':', '-')}"
            listed = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", tag))
            assert [each["digest"] for each in listed["manifests"]] == [str(signed.digest)]
        target = tmp_path / "read"
        skopeo("copy", "--all", "--src-tls-verify=false", source, f"oci:{target}:2")
    for each in shelf.manifests.keys() - {signed.digest}:
        assert Digest.of((target / "blobs/sha256" / each.encoded).read_bytes()) == each
