"""The machine of the mirror: the disk of the cache, its speed, rights, limits on files. All calls block."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from mirror.config.schema import CacheSettings, Config
from mirror.doctor.finding import Diagnosis, error, fine, warning
from mirror.system.descriptors import clients_within
from mirror.util.units import size

MIB = 1024 * 1024

# Bytes that are written to measure the disk, and the speed below which it limits pulls, in bytes per second.
SAMPLE = 8 * MIB
SLOW = 10 * MIB

# Room and inodes that are worth a word: a large image, and a share of all.
LITTLE_ROOM = 1024 * MIB
FEW_INODES = 0.02

KEEPS_NOTHING = "pulls go on, and nothing is kept"


def examine_disk(path: Path, settings: CacheSettings) -> list[Diagnosis]:
    """Return the findings about the folder of the cache: room, inodes, rights, speed."""
    place = _nearest(path)
    try:
        findings = [*_room(path, place, settings)]
        findings += _writing(path, place)
    except OSError as reason:
        what = f"it cannot be read: {(reason.strerror or 'no reason given').lower()}"
        return [error(str(path), what, KEEPS_NOTHING, "mount it, or name another folder: cache.dir")]
    return findings


def _nearest(path: Path) -> Path:
    """Return the folder, or the one above that it would be made in."""
    return next(each for each in (path, *path.absolute().parents) if each.is_dir())


def _room(path: Path, place: Path, settings: CacheSettings) -> Iterator[Diagnosis]:
    disk = os.statvfs(place)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    reserve = settings.min_free.of(total)
    used = _cached(path)
    room = free + used - reserve
    if settings.max_size.of(total):
        room = min(room, settings.max_size.of(total))
    state = f"{size(free)} of {size(total)} free, {size(used)} cached, min_free is {size(reserve)}"
    if room <= 0:
        mend = "make room on its file system, or lower cache.min_free"
        yield error(str(path), f"there is no room for the cache: {state}", KEEPS_NOTHING, mend)
    elif room < LITTLE_ROOM:
        mend = "make room on its file system, or put the cache on a larger one: cache.dir"
        yield warning(str(path), f"there is little room: {state}", "what is kept is soon evicted", mend)
    else:
        yield fine(str(path), state)
    if disk.f_files and disk.f_favail < disk.f_files * FEW_INODES:
        what = f"{disk.f_favail} of {disk.f_files} inodes are free"
        mend = f"df -i {place}; find what makes so many files, or put the cache on another file system"
        yield warning(str(path), what, "without an inode no file is made, however much room there is", mend)


def _cached(path: Path) -> int:
    """Return the bytes of the cache, by its blobs: a walk of the index would need its lock."""
    total = 0
    for folder, _, names in os.walk(path / "blobs"):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except OSError:  # evicted meanwhile
                continue
    return total


def _writing(path: Path, place: Path) -> Iterator[Diagnosis]:
    """Yield whether the folder can be written, and how fast."""
    sample = place / f".registry-mirror-doctor-{token_hex(8)}"
    try:
        seconds = _write(sample)
    except OSError as reason:
        what = f"it cannot be written: {(reason.strerror or 'no reason given').lower()}"
        owner = place.stat().st_uid
        mend = f"chown -R registry-mirror {place} (it belongs to user {owner}), or mount it writable"
        yield error(str(path), what, KEEPS_NOTHING, mend)
        return
    finally:
        with suppress(OSError):
            sample.unlink()
    speed = SAMPLE / seconds
    what = f"it is written with {size(int(speed))} per second"
    if speed < SLOW:
        mend = "put the cache on a faster disk: cache.dir"
        yield warning(str(path), what, "a cold pull is no faster than this disk", mend)
    else:
        yield fine(str(path), what)


def _write(sample: Path) -> float:
    """Write a file through to the disk; return the seconds that it took."""
    data = os.urandom(MIB)
    descriptor = os.open(sample, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        began = time.monotonic()
        for _ in range(SAMPLE // MIB):
            written = 0
            while written < MIB:
                written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
        return max(time.monotonic() - began, 1e-6)
    finally:
        os.close(descriptor)


def examine_limits(config: Config, pid: int | None = None) -> list[Diagnosis]:
    """Return the finding about the limit of open files: of the mirror's process `pid`, or of this one."""
    limit = _file_limit(pid)
    wanted = config.server.connections
    clients = clients_within(limit, wanted)
    subject = "open files"
    if clients >= wanted:
        return [fine(subject, f"the limit of {limit} is enough for {wanted} clients")]
    return [
        warning(
            subject,
            f"the limit of {limit} is enough for {clients} clients, and server.connections is {wanted}",
            "further clients wait for a place",
            "LimitNOFILE=65536 under [Service] of the unit, or ulimit -n 65536 before serve",
        )
    ]


def _file_limit(pid: int | None) -> int:
    """Return the hard limit, to which the mirror raises its own."""
    if pid is not None:
        try:
            lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
            found = next(line for line in lines if line.startswith("Max open files")).split()
            return int(found[4]) if found[4] != "unlimited" else resource.RLIM_INFINITY
        except (OSError, ValueError, IndexError, StopIteration):
            pass
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
