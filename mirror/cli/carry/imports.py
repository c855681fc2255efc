"""The command of the receiving side: `import`."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn

import typer

from mirror.cli.common import (
    IMPORTED_BY_CARRYING,
    INTERRUPTED,
    fail,
    import_before_becoming_owner,
    opened,
)
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_line, say, tell
from mirror.util.units import size

if TYPE_CHECKING:
    from mirror.bundle.archives.archive import Archive
    from mirror.cli.progress import ProgressView
    from mirror.config.schema import Config
    from mirror.manage.carry.imports import ImportedImage, ImportOptions
    from mirror.manage.carry.room import ImportRoom
    from mirror.manage.management import Management
    from mirror.store.cache_dir import CacheDirectory

IMPORT_HELP = """Keep the images of a file that was carried here.

\b
    registry-mirror import lab.tar --pin
    registry-mirror import lab.1-of-3.tar lab.2-of-3.tar lab.3-of-3.tar
    registry-mirror import images.tar --as quay.io/org/app
    registry-mirror import /srv/registry/docker/registry/v2
    ssh sender registry-mirror export -o - alpine:3.20 | registry-mirror import -

FILE is what `registry-mirror export` wrote, an OCI image layout (a tar, also gzip or zstd, or a folder) of
skopeo, crane, buildx, oras or docker save, or the storage folder of the registry of distribution. It works
beside a running mirror, which serves the images at once.

Each blob is verified before it is kept. Parts may come in any order, and an import that was interrupted goes
on when it is repeated. Tags are labelled as imported until their registry confirms them; a tag that was
confirmed here later than at the sender stays, unless --force says otherwise. Names without a registry are
those of docker.io, or below --as: a registry, or the name of the image.
"""

Files = Annotated[list[str], typer.Argument(metavar="FILE", help='Files or folders; "-" for standard input.')]
PinThem = Annotated[bool, typer.Option("--pin", help="Pin the images.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace newer tags too.", show_default=False)]
GivenName = Annotated[
    str,
    typer.Option(
        "--as", metavar="NAME", help="Name of the image, or registry of the images.", show_default=False
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("import", cls=Command, help=IMPORT_HELP)(import_images)


def import_images(
    files: Files,
    pin: PinThem = False,
    force: Force = False,
    given: GivenName = "",
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    import_before_becoming_owner(IMPORTED_BY_CARRYING)
    with ExitStack() as stack:
        # Before this process becomes the owner of the cache, who may not read what its caller can.
        sources = [(name, _source(name, stack)) for name in files]
        with opened(config, cache_dir) as (management, settings):
            _require_readable(sources)
            options = _options(settings, given, forced=force, pin=pin)
            run = _Run(management, options, as_json=as_json)
            with _exit_with_advice(management.folder):
                run.read(sources)
                run.finish()
            raise SystemExit(run.status)


class _Run:
    """One run of `import`. `status`: the exit status."""

    def __init__(self, management: "Management", options: "ImportOptions", *, as_json: bool) -> None:
        from msgspec.structs import replace

        self._management = management
        self._import = management.imports.begin(replace(options, on_room=self._show_room)).now()
        self._options = options
        self._as_json = as_json
        self.status = 0

    def read(self, sources: "list[tuple[str, Path | BinaryIO]]") -> None:
        """Read the archives one after another; one that is damaged is named, and the others are read."""
        from mirror.bundle.archives.opening import open_archive
        from mirror.bundle.errors import BundleError
        from mirror.cli.progress import shown

        with shown(len(sources), as_json=self._as_json) as view:
            for name, source in sources:
                progress = _Progress(name, source, view)
                try:
                    with open_archive(source) as archive:
                        reading = self._management.imports.read(
                            self._import, archive, _origin(name), progress.add
                        )
                        reading.now()
                        self._show_notes(archive, view)
                except BundleError as error:
                    self.status = 1
                    progress.end("failed", str(error))
                else:
                    progress.end("done")
            new = self._import.stored
            view.done(blobs=len(new), blob_bytes=sum(new.values()), damaged=len(self._import.damages))
        for damage in self._import.damages:
            self.status = 1
            self._show_damage(str(damage))

    def finish(self) -> None:
        """Write the index, and show the result of each image."""
        from mirror.store.errors import PinTooLarge

        try:
            hosts = set()
            for image in self._management.imports.finish(self._import):
                self._show(image)
                hosts.add(image.name.partition("/")[0])
            self._note_unknown(hosts)
        except PinTooLarge as error:
            fail(
                f"the images are here, and not pinned: {size(error.asked)} more do not fit beside the "
                f"{size(error.used)} of other pins; {size(error.allowed)} are allowed.\n"
                "Raise cache.max_size (or lower cache.min_free), or unpin something: registry-mirror pins",
                1,
            )

    def _note_unknown(self, hosts: set[str]) -> None:
        """Say which registries of the images are not configured: no client can ask for them."""
        for host in sorted(hosts - self._options.namer.names.keys()):
            if not self._as_json:
                tell(f"Note: no upstream is called {host} in this configuration: no client can ask for it.")

    def _show(self, image: "ImportedImage") -> None:
        if image.state == "lacking":
            self.status = 1
        if self._as_json:
            json_line({"event": "imported", **_image_json(image)})
        elif image.state in ("imported", "present"):
            result = "already here" if image.state == "present" else "imported"
            say(f"{image.name}: {result}, {size(image.size)}")
        elif image.state == "older":
            say(f"{image.name}: imported, and the tag stays as it is: it is newer here. --force replaces it")
        else:
            tell(_lacking_line(image))

    def _show_room(self, room: "ImportRoom") -> None:
        if room.evicted > 0 and not self._as_json:
            tell(f"{size(room.evicted)} of other images go for it, the least recently used ones first.")

    def _show_notes(self, archive: "Archive", view: "ProgressView") -> None:
        for note in archive.notes:
            view.tell(note)

    def _show_damage(self, message: str) -> None:
        if self._as_json:
            json_line({"event": "damaged", "reason": message})
        else:
            tell(f"damaged: {message}")


class _Progress:
    """The progress of one archive."""

    def __init__(self, name: str, source: Path | BinaryIO, view: "ProgressView") -> None:
        self._name = name
        self._view = view
        self._done = 0
        self._total = _size_of(source)

    def add(self, count: int) -> None:
        self._done += count
        self._show("running")

    def end(self, state: str, reason: str = "") -> None:
        self._show(state, reason)

    def _show(self, state: str, reason: str = "") -> None:
        from mirror.util.progress.amounts import ImageProgress, ProgressAmount

        amount = ProgressAmount(self._done, self._total)
        self._view.update(ImageProgress(self._name, amount, state=state, reason=reason))  # type: ignore[arg-type]


def _source(name: str, stack: ExitStack) -> Path | BinaryIO:
    """Open a file; return a folder as a path. The command ends with 2 if there is none."""
    if name == "-":
        if sys.stdin.isatty():
            fail("-: standard input is a terminal; redirect a file or a program to it", 2)
        return sys.stdin.buffer
    path = Path(name).absolute()
    if path.is_dir():
        return path
    from mirror.bundle.archives.opening import open_regular
    from mirror.bundle.errors import BundleError

    try:
        return stack.enter_context(open_regular(path))
    except BundleError as error:
        fail(str(error), 2)


def _require_readable(sources: "list[tuple[str, Path | BinaryIO]]") -> None:
    """End the command with 1 for a folder that the cache's owner, who this process is by now, cannot read."""
    import os
    import pwd

    for name, source in sources:
        if isinstance(source, Path) and not os.access(source, os.R_OK | os.X_OK):
            user = pwd.getpwuid(os.geteuid()).pw_name
            fail(
                f"{name} cannot be read by {user}, the owner of the cache, as whom this is done.\n"
                f"Let {user} read it: setfacl -R -m u:{user}:rX {name}, and open the folders above it",
                1,
            )


def _size_of(source: Path | BinaryIO) -> int | None:
    """Return the size of a file; None for a pipe and for a folder."""
    import os
    import stat

    if isinstance(source, Path):
        return None
    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _origin(name: str) -> str:
    """Return the name of an archive for the label of its tags."""
    return "standard input" if name == "-" else Path(name).absolute().name


def _options(settings: "Config", given: str, *, forced: bool, pin: bool) -> "ImportOptions":
    from mirror.manage.carry.imports import ImportOptions
    from mirror.manage.carry.names import Namer

    names = settings.names().names
    accounts = {
        each.name
        for each in settings.upstreams
        if any(end.logins() for end in (each, *getattr(each, "sources", ())))
    }
    return ImportOptions(
        Namer(names, given),
        accounts,
        time.time(),
        forced,
        pin,
        ruled=settings.policy().restricts,
        hosted=frozenset(each.name for each in settings.hosted),
    )


@contextmanager
def _exit_with_advice(folder: "CacheDirectory") -> Iterator[None]:
    """End the command with what is wrong and what to do, for errors that more reading does not mend."""
    from mirror.bundle.errors import BundleError
    from mirror.manage.carry.imports import NoRoomForImport
    from mirror.store.errors import NoRoom, reason_of

    try:
        yield
    except NoRoomForImport as error:
        _fail_for_room(error.room)
    except (NoRoom, BundleError) as error:
        fail(str(error), 1)
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(
            f"the import broke off: {reason_of(error)}. The cache is in {folder.path}\n"
            "What was verified before is kept. Mend that, and repeat the command: it goes on from there",
            1,
        )
    except KeyboardInterrupt:
        tell("Interrupted. What was verified is kept: the same command goes on from there.")
        raise SystemExit(INTERRUPTED) from None


def _fail_for_room(room: "ImportRoom") -> NoReturn:
    pinned = f", {size(room.pinned)} of it pinned" if room.pinned else ""
    fail(
        f"nothing was imported: {size(room.new)} are new, the cache may have {size(room.allowed)}{pinned}.\n"
        "Raise cache.max_size, lower cache.min_free or free some space, then repeat this",
        1,
    )


def _lacking_line(image: "ImportedImage") -> str:
    count, lacking = len(image.lacking), sum(image.lacking.values())
    line = f"{image.name}: {count} blob{'s' if count > 1 else ''} ({size(lacking)}) of it not here yet"
    if image.parts:
        return f"{line}: import part {', '.join(map(str, image.parts))} of the bundle"
    return f"{line}, and not in the file: export it again, with a new list of registry-mirror have"


def _image_json(image: "ImportedImage") -> dict[str, Any]:
    return {
        "image": image.name,
        "digest": str(image.root),
        "result": image.state,
        "size": image.size,
        "lacking": {str(digest): count for digest, count in sorted(image.lacking.items())},
        "parts": list(image.parts),
    }
