"""Helpers of all commands: the configuration, the cache folder, image patterns, error messages.

Imports are inside the functions: a command imports what it uses, and `--help` nothing of it.
"""

import gc
import importlib
import os
import pwd
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mirror.cli.output import tell

if TYPE_CHECKING:
    from mirror.config.loader import Loaded
    from mirror.config.schema import Config
    from mirror.manage.management import Management
    from mirror.oci.image_pattern import ImagePattern

# Where the service of systemd/registry-mirror.service keeps its cache.
SERVICE_FOLDER = Path("/var/cache/registry-mirror")

# An address as it stands in front of an image's name, and the hosts of it that mean this machine.
HOST_WITH_PORT = re.compile(r"[^/@]+:[0-9]{1,5}")
LOOPBACK = ("127.0.0.1", "localhost")

# What to do about a folder that this user may not use, and about one that no user can write to.
OTHER_USER = "Run this with sudo, or as that user"
REMOUNT = "mount it writable, or copy the folder to another disk"


# Exit status of a command that SIGINT ended, as shells count.
INTERRUPTED = 130

# What commands import after they have opened the cache folder.
IMPORTED_BY_COMMANDS = (
    "ctypes",  # by a write to the database of the blobs
    "mirror.manage.disk_usage",
    "mirror.manage.facade.backups",
    "mirror.manage.facade.bundles",
    "mirror.manage.facade.disk",
    "mirror.manage.facade.images",
    "mirror.manage.facade.pins",
    "mirror.manage.facade.tokens",
    "mirror.manage.facade.upkeep",
    "mirror.manage.garbage_collector",
    "mirror.manage.inventory",
    "mirror.manage.management",
    "mirror.manage.removal",
    "mirror.manage.tokens",
    "mirror.manage.verification",
    "mirror.store.blobs.fsck",
    "mirror.store.cache_dir",
    "mirror.store.hosted.opened",
    "mirror.store.folder.pruning",
    "mirror.store.pins.pin_file",
    "mirror.store.tokens.token_store",
    "mirror.util.rate_limiter",
    "rich.console",
    "rich.progress",
    "rich.table",
)


# What the commands that carry images import besides.
IMPORTED_BY_CARRYING = (
    "mirror.bundle.archives.opening",
    "mirror.cli.progress",
    "mirror.manage.carry.export",
    "mirror.manage.carry.export_run",
    "mirror.manage.carry.have",
    "mirror.manage.carry.held",
    "mirror.manage.carry.imports",
    "mirror.system.descriptors",
    "unicodedata",
    "zstandard",
)


def import_before_becoming_owner(modules: Sequence[str]) -> None:
    """Import what root's command uses later, as a user who may not be able to read the program."""
    if os.geteuid() == 0:
        for module in modules:
            importlib.import_module(module)


def fail(message: str, code: int) -> NoReturn:
    """End the command with `code`, and say why on standard error."""
    with suppress(OSError):  # the exit status tells, even where nothing can be written
        for line in message.splitlines():
            tell(f"registry-mirror: {line}")
    raise SystemExit(code)


def start_collector() -> None:
    """Let Python collect garbage from now on, but never look at what the imports have made.

    Imports leave hardly any garbage, and the collector would take a tenth of the start.
    """
    gc.freeze()
    gc.enable()


def loaded(file: str | None, flags: Mapping[str, object]) -> "Loaded":
    """Return the configuration; the command ends with 2 if the configuration cannot be used."""
    from mirror.config.loader import SYSTEM_FILE, ConfigError, config_file, environment, load

    try:
        return load(file, environment(), flags)
    except ConfigError as error:
        chosen = file is None and config_file(None, environment()) == SYSTEM_FILE
        hint = f'\n{SYSTEM_FILE} is read because it exists; --config "" goes without it' if chosen else ""
        fail(f"{error}{hint}", 2)


@contextmanager
def opened(file: str | None, cache_dir: str | None) -> "Iterator[tuple[Management, Config]]":
    """Open the cache folder, beside a running mirror or a stopped one; without a cache it ends with 1."""
    config = loaded(file, {"cache_dir": cache_dir}).config
    with opened_folder(config) as management:
        yield management, config


@contextmanager
def opened_folder(config: "Config") -> "Iterator[Management]":
    """Open the cache folder of a configuration, as `opened` does."""
    from mirror.manage.management import Management
    from mirror.store.errors import StoreError, translated
    from mirror.store.hosted.opened import open_cache
    from mirror.util.log import configure_later

    start_collector()
    configure_later(config.log, sys.stderr)
    path = config.cache.dir
    become_owner(path, 1)
    require_cache(path)
    try:
        with translated(f"cannot use the cache folder {path}"):
            folder = open_cache(path, config.cache)
            try:
                yield Management(folder)
            finally:
                folder.close()
    except StoreError as error:
        fail(str(error), 1)


def become_owner(path: Path, code: int) -> None:
    """Make this process, if root runs it, the owner of the folder `path` for good; else check the owner.

    A row, a link or a name in the folder then leads to nothing that its owner could not reach without root.
    Modules are imported before: the owner may not be able to read the program. Ends with `code` on failure.
    """
    if os.geteuid() != 0:
        require_owner(path, code, "run this with sudo, or as that user")
    if os.geteuid() != 0 or not path.is_dir() or (owner := path.stat()).st_uid == 0:
        return
    for module in IMPORTED_BY_COMMANDS:
        importlib.import_module(module)
    name = _owner(path)
    try:
        os.setgroups([])
        os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)  # glibc: in all threads
    except OSError as error:
        fail(
            f"root cannot become {name}, the owner of {path}, here ({error.strerror}): run this as {name}",
            code,
        )
    if not os.access(path, os.X_OK):
        fail(f"{path} belongs to {name}, who cannot reach it: open the folders above it to {name}", code)


def require_owner(path: Path, code: int, advice: str) -> None:
    """End the command with `code` if the folder `path` belongs to a user other than this one and root."""
    if os.path.isdir(path) and path.stat().st_uid not in (0, os.geteuid()):
        fail(f"{path} belongs to {_owner(path)}: {advice}", code)


def require_cache(path: Path, code: int = 1, part: str = "books") -> None:
    """End the command with `code`, and say what to do, if `path` has no cache or this user may not change it.

    `part` is the folder in the cache that the command needs.
    """
    require_access(path, code)
    if (path / part).is_dir():
        return
    lines = [
        f"there is no cache in {path}: name its folder with --cache-dir or --config,",
        "or start the mirror, which creates it: registry-mirror serve",
    ]
    if path != SERVICE_FOLDER and SERVICE_FOLDER.exists():
        lines.append(f"A service's cache is in {SERVICE_FOLDER}: run this with sudo to use it.")
    fail("\n".join(lines), code)


def require_access(path: Path, code: int) -> None:
    """End the command with `code` if this user may not reach, read and change the folder `path`."""
    try:
        if not path.is_dir() or os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return
    except PermissionError:
        above = _unsearchable(path)
        fail(f"{path} cannot be reached: {above} belongs to {_owner(above)}. {OTHER_USER}", code)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        fail(
            f"{path} is on a read-only file system, and this command writes to its databases: {REMOUNT}", code
        )
    fail(f"{path} belongs to {_owner(path)}. {OTHER_USER}", code)


def _unsearchable(path: Path) -> Path:
    """Return the uppermost folder above `path` that this user may not search."""
    above = path.absolute().parents
    return next((each for each in reversed(above) if not _searchable(each)), above[0])


def _searchable(path: Path) -> bool:
    return os.access(path, os.X_OK, effective_ids=True)


def _owner(path: Path) -> str:
    number = path.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a user of a container, for instance
        return f"user {number}"


def image_name(text: str, config: "Config") -> str:
    """Return a pattern without the address of the mirror in front, and with a star after a registry's name.

    `docker pull` needs the address; in the cache no image has it.
    """
    names = config.names()
    first, slash, rest = text.partition("/")
    if slash and first.lower() not in names.names:
        if rest.partition("/")[0].lower() in names.names and HOST_WITH_PORT.fullmatch(first):
            text = rest
        elif first in _own_addresses(config):
            text = f"{names.default}/{rest}"
    return f"{text}/*" if text in names.names else text


def _own_addresses(config: "Config") -> set[str]:
    """Return the addresses of the mirror that a client on this machine may use."""
    listen = config.server.listen
    return {*listen, *(f"{host}:{each.rpartition(':')[2]}" for each in listen for host in LOOPBACK)}


def pattern(text: str, config: "Config", *, any_tag: bool = False) -> "ImagePattern":
    """Return the images that `text` means; the command ends with 2 if it can mean none.

    The name of a registry means all its images.
    """
    from mirror.oci.image_pattern import ImagePattern

    try:
        return ImagePattern.parse(image_name(text, config), config.names().names, any_tag=any_tag)
    except ValueError as error:
        fail(str(error), 2)
