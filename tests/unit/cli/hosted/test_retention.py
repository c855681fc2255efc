"""`hosted retention` as a process."""

import json
import time
from functools import partial
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.pushes import PushedManifest
from tests.hosting import APP, manifest_of
from tests.unit.cli.test_app import run

RULE = "[[hosted]]\nname = 'office'\n[[hosted.retention]]\nkeep_last = 1\n"


def filled(cache: Path) -> None:
    """A folder with two tags, which were pushed two and three hours ago."""
    folder = CacheDirectory(cache)
    for hours, name in ((3, "1"), (2, "2")):
        index = HostedIndex(folder, partial(float, time.time() - hours * 3600))
        index.names.register(["office"], [])
        data = manifest_of(annotations={"n": name})
        path = folder.partials / "incoming"
        path.write_bytes(data)
        folder.blobs.add(VerifiedFile(Digest.of(data), path, len(data), retained=True))
        index.put_manifest(PushedManifest(APP, Digest.of(data), data, OCI_MANIFEST, (Tag(name),)))
    folder.close()


def test_retention_tells_and_then_removes(tmp_path: Path) -> None:
    cache, file = tmp_path / "cache", tmp_path / "mirror.toml"
    filled(cache)
    file.write_text(RULE)
    place = ("--cache-dir", str(cache), "--config", str(file))
    dry = run("hosted", "retention", "--dry-run", "--all", "--json", *place)
    listed = [(each["tag"], each["action"]) for each in json.loads(dry.stdout)]
    assert listed == [("1", "remove"), ("2", "keep")]
    assert "1 of 2 tags" in dry.stderr
    assert "would be removed." in dry.stderr
    done = run("hosted", "retention", "office/app", *place)
    assert done.returncode == 0
    assert [line.split("\t")[:3] for line in done.stdout.splitlines()[1:]] == [["office/app", "1", "remove"]]
    assert "0 of 1 tags" in run("hosted", "retention", *place).stderr


def queued(cache: Path) -> set[tuple[str, bool]]:
    """References that wait for the targets of replication, and whether they may be deleted there."""
    found = [json.loads(each.read_text()) for each in (cache / "replication").rglob("*.json")]
    return {(each["reference"], each["deletes"]) for each in found}


def test_removals_by_hand_go_to_the_targets_of_replication(tmp_path: Path) -> None:
    """`hosted retention` and `rm` queue their removals as deletions, and a dry run queues nothing."""
    cache, file = tmp_path / "cache", tmp_path / "mirror.toml"
    filled(cache)
    file.write_text(f"{RULE}[[hosted.mirror_to]]\nurl = 'http://127.0.0.1:9'\n")
    place = ("--cache-dir", str(cache), "--config", str(file))
    first, second = (str(Digest.of(manifest_of(annotations={"n": name}))) for name in ("1", "2"))
    run("hosted", "retention", "--dry-run", *place)
    run("rm", "office/app:2", "--dry-run", *place)
    assert queued(cache) == set()
    run("hosted", "retention", *place)
    assert {("1", True), (first, True)} >= queued(cache) >= {("1", True)}
    done = run("rm", "office/app:2", "--yes", *place)
    assert done.returncode == 0, done.stderr
    assert queued(cache) >= {("1", True), ("2", True), (second, True)}


def test_retention_names_what_is_missing(tmp_path: Path) -> None:
    cache, file = tmp_path / "cache", tmp_path / "mirror.toml"
    filled(cache)
    file.write_text("")
    place = ("--cache-dir", str(cache), "--config", str(file))
    done = run("hosted", "retention", *place)
    assert done.returncode == 1
    assert "has a retention" in done.stderr
    file.write_text(RULE)
    done = run("hosted", "retention", "office/none", *place)
    assert done.returncode == 1
    assert "office/none" in done.stderr
