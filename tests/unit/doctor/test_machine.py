"""The disk and the limits of the mirror's machine, with real disks."""

import os
import resource
import subprocess
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.doctor.finding import Diagnosis, Severity
from mirror.doctor.machine import examine_disk, examine_limits
from tests.disks import MIB, fill_up, formatted, mount, tmpfs
from tests.running import configured


def settings(path: Path, min_free: int = 0, max_size: int = 0) -> CacheSettings:
    return CacheSettings(dir=path, min_free=Amount(min_free), max_size=Amount(max_size))


def bad(findings: list[Diagnosis]) -> list[Diagnosis]:
    return [each for each in findings if each.severity is not Severity.FINE]


def test_disk_with_room_is_fine(tmp_path: Path) -> None:
    """Room, what is cached, and the speed are told; the sample is gone; the folder need not be there yet."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/x").write_bytes(bytes(3 * MIB))
    room, speed = examine_disk(tmp_path, settings(tmp_path))
    assert "3 MiB cached" in room.what
    assert "per second" in speed.what
    assert os.listdir(tmp_path) == ["blobs"]
    assert examine_disk(tmp_path / "not/there", settings(tmp_path))[0].subject.endswith("not/there")


def test_quota_smaller_than_an_image_is_little_room(tmp_path: Path) -> None:
    """The smaller one of the disk and `max_size` counts."""
    found = bad(examine_disk(tmp_path, settings(tmp_path, max_size=100 * MIB)))
    assert ("there is little room" in found[0].what, found[0].severity) == (True, Severity.WARNING)


@pytest.mark.needs(root=True)
def test_disk_without_room_keeps_nothing(tmp_path: Path) -> None:
    """`min_free` larger than what is free, and a disk that is full, are errors that say so."""
    with tmpfs(tmp_path / "disk", 32 * MIB) as disk:
        (found,) = bad(examine_disk(disk, settings(disk, min_free=1024 * MIB)))
        assert (found.severity, "there is no room" in found.what) == (Severity.ERROR, True)
        fill_up(disk / "other")
        found = bad(examine_disk(disk, settings(disk)))[-1]
        assert "cannot be written: no space left" in found.what


@pytest.mark.needs(root=True)
def test_disk_that_is_read_only(tmp_path: Path) -> None:
    """The kernel's word is in the finding."""
    with tmpfs(tmp_path / "disk", 32 * MIB) as disk:
        mount("-o", "remount,ro", disk)
        found = bad(examine_disk(disk, settings(disk)))[-1]
    assert "cannot be written: read-only file system" in found.what


@pytest.mark.needs("mkfs.ext4", root=True)
def test_disk_without_inodes(tmp_path: Path) -> None:
    """Room without inodes is no room."""
    with formatted(tmp_path / "disk", "ext4", 64 * MIB) as disk:
        free = os.statvfs(disk).f_favail
        for number in range(free - 20):
            (disk / str(number)).touch()
        found = bad(examine_disk(disk, settings(disk)))
    assert any("inodes are free" in each.what for each in found)


def test_folder_of_another_user(tmp_path: Path) -> None:
    """A folder that this user may not write names its owner."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    found = bad(examine_disk(tmp_path, settings(tmp_path)))[-1]
    tmp_path.chmod(0o700)
    assert f"belongs to user {os.getuid()}" in found.mend


def test_limit_of_files_of_the_mirror_s_process(tmp_path: Path) -> None:
    """The running mirror's limit counts, not that of the shell of the doctor."""
    config = configured(tmp_path, {"docker.io": "http://127.0.0.1:1"}, server={"connections": 1000})
    command = ["sh", "-c", "ulimit -n 256; echo; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = examine_limits(config, process.pid)
        process.kill()
    assert (found.severity, "LimitNOFILE" in found.mend) == (Severity.WARNING, True)
    enough = resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 2 * 1064
    assert (examine_limits(config)[0].severity is Severity.FINE) is enough
    assert examine_limits(config, 2**22 + 1) == examine_limits(config)
