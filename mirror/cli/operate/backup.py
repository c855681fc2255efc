"""The commands `backup` and `restore`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TypeVar

import typer

from mirror.cli.common import (
    INTERRUPTED,
    become_owner,
    fail,
    import_before_becoming_owner,
    loaded,
    opened,
    start_collector,
)
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_document, say, tell
from mirror.util.callbacks import ignore

if TYPE_CHECKING:
    from mirror.cli.progress import ProgressView
    from mirror.manage.backup.layout import BackupContents
    from mirror.manage.backup.writer import BackupPlan

BACKUP_HELP = """Write what cannot be fetched again to one file, while the mirror runs.

\b
    registry-mirror backup -o /srv/backup/mirror.tar
    registry-mirror backup --dry-run
    registry-mirror backup -o - | ssh other 'cat > mirror.tar'

It has the pins, the tokens (hashes, not the secrets), the state of scheduled lists, the savings by day, when
images were first seen, and hosted registries with all that was pushed. What a registry has is not in it, nor
is the configuration; images that came by `import` are in the bundles they came from. The file is for its
owner alone, and takes the place of an earlier one when it is complete. If blobs are missing that were pushed,
the rest is written, and the exit status is 1.
"""

RESTORE_HELP = """Make a cache folder from a backup.

\b
    registry-mirror restore /srv/backup/mirror.tar
    registry-mirror restore --dry-run /srv/backup/mirror.tar

The folder must be new or empty. Everything is verified before it counts; if anything is wrong, nothing is
kept. --dry-run verifies the file alone. An interrupted restore is begun again by the same command.
"""

T = TypeVar("T")

# What a backup is for programs to read: its own owner's, no others'.
MODE = 0o600

# What is imported before root becomes the owner of the folder.
IMPORTED_BY_BACKUP = (
    "mirror.cli.progress",
    "mirror.manage.backup.restore",
    "mirror.manage.backup.writer",
    "mirror.store.metadata.savings_book",
    "tempfile",
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(cls=Command, help=BACKUP_HELP)(backup)
    app.command(cls=Command, help=RESTORE_HELP)(restore)


def backup(
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help='File to write; "-" for standard output.',
            show_default=False,
        ),
    ] = "",
    dry_run: DryRun = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    from mirror.cli.carry.outputs import output_folder

    if not output and not dry_run:
        fail("name the file to write: registry-mirror backup -o FILE", 2)
    if output == "-" and sys.stdout.isatty():
        fail("standard output is a terminal: name a file with -o FILE", 2)
    import_before_becoming_owner(IMPORTED_BY_BACKUP)
    place = Path(output or "-").absolute()
    if place.is_dir() or not place.parent.is_dir():
        fail(
            f"{output} is a folder: name a file" if place.is_dir() else f"there is no folder {place.parent}",
            2,
        )
    folder = output_folder(place.parent, loaded(config, {"cache_dir": cache_dir}).config.cache.dir, MODE)
    with opened(config, cache_dir) as (management, _):
        if dry_run:
            _show_plan(management.backups.plan().now(), as_json=as_json)
            return
        target = sys.stdout.buffer if output == "-" else folder
        contents = _carried_out(
            lambda on_bytes: management.backups.write(target, place.name, on_bytes).now(),
            place.name,
            quiet=output == "-",
        )
    _show(contents, tell if output == "-" else say, as_json=as_json and output != "-")
    for each in contents.missing:
        tell(f"missing: {each}, which a hosted repository names, is not here")
    if contents.missing:
        raise SystemExit(1)


def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help='Backup; "-" for standard input.')],
    dry_run: DryRun = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    from mirror.manage.backup.restore import check_target, verify
    from mirror.manage.backup.restore import restore as restored

    import_before_becoming_owner(IMPORTED_BY_BACKUP)
    start_collector()
    path = loaded(config, {"cache_dir": cache_dir}).config.cache.dir
    with _opened_archive(file) as archive:
        if path.is_dir():
            become_owner(path, 1)

        def work(on_bytes: Callable[[int], object]) -> "BackupContents | None":
            if not dry_run:
                return restored(archive, path, on_bytes)
            check_target(path)
            return verify(archive, on_bytes)

        contents = _carried_out(work, file, quiet=False)
    if contents is None:
        tell(f"an earlier restore to {path} had only its last step left, which is done; {file} was not read")
        return
    _show(contents, say, as_json=as_json)
    if not dry_run and not as_json:
        say(f"restored to {path}")


def _opened_archive(file: str) -> BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    try:
        return open(file, "rb")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", 1)


class _Progress:
    """The progress of one file."""

    def __init__(self, name: str, view: "ProgressView") -> None:
        self._name = name
        self._view = view
        self._done = 0

    def add(self, count: int) -> None:
        from mirror.util.progress.amounts import ImageProgress, ProgressAmount

        self._done += count
        self._view.update(ImageProgress(self._name, ProgressAmount(self._done, None)))


def _carried_out(work: Callable[[Callable[[int], object]], T], name: str, *, quiet: bool) -> T:
    """Return the result of `work`, which is given what counts its bytes; errors end the command with 1."""
    from mirror.cli.progress import shown
    from mirror.manage.backup.layout import BackupError
    from mirror.store.errors import StoreError, translated

    try:
        with translated(name):
            if quiet:
                return work(ignore)
            with shown(1, as_json=False) as view:
                return work(_Progress(name, view).add)
    except (BackupError, StoreError) as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from None
        fail(str(error), 1)
    except KeyboardInterrupt:
        tell("Interrupted. Nothing was kept of it; an earlier backup is as it was.")
        raise SystemExit(INTERRUPTED) from None


def _show_plan(plan: "BackupPlan", *, as_json: bool) -> None:
    import msgspec

    if as_json:
        json_document(msgspec.to_builtins(plan))
        return
    names = f" of {', '.join(plan.hosted)}" if plan.hosted else ""
    say(f"{plan.blobs} blobs{names}, {_size(plan.blob_bytes)}; {plan.pins} pins, {plan.tokens} tokens")
    say(f"files: {', '.join(plan.files) or 'none'}; {plan.rows} rows of the index")


def _show(contents: "BackupContents", show: Callable[[str], None], *, as_json: bool) -> None:
    import msgspec

    if as_json:
        json_document(msgspec.to_builtins(contents))
        return
    names = f" of {', '.join(contents.hosted)}" if contents.hosted else ""
    blobs = f"{contents.blobs} blobs{names}, {_size(contents.blob_bytes)}"
    show(f"{blobs}; {contents.pins} pins, {contents.tokens} tokens")


def _size(count: int) -> str:
    from mirror.util.units import size

    return size(count)
