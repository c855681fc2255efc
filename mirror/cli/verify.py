"""`registry-mirror verify`: check every cached file against its digest."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import INTERRUPTED, become_owner, fail, loaded, require_cache, start_collector
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_document, say, tell
from mirror.util.terminal_log import printable
from mirror.util.units import size

if TYPE_CHECKING:
    from mirror.manage.management import Management
    from mirror.manage.verification import Verification
    from mirror.store.blobs.fsck import Finding
    from mirror.util.rate_limiter import RateLimiter

HELP = """Check every cached file against its digest.

\b
    registry-mirror verify
    registry-mirror verify --quick
    registry-mirror verify --repair --rate 50MiB

Each index entry must have its file, each file its entry, and each file must hash to its name. Problems are
printed one per line. The exit status is 0 if there is none, 1 if there is one, and 2 if the check failed.
Ctrl-C stops the check, and the next run goes on where it stopped. It may run beside a running mirror; --rate
leaves a busy disk to the clients.

--repair moves wrong files to the folder `quarantine` of the cache, and clients get them from the upstream
again. Right files without an entry, which a crash or a lost database leaves, get an entry.
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command, help=HELP)(verify)


def verify(
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare sizes only, and read no file.", show_default=False)
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what is wrong.", show_default=False)
    ] = False,
    rate: Annotated[
        str,
        typer.Option(
            "--rate",
            metavar="SIZE",
            help="Read at most this per second. Default: no limit.",
            show_default=False,
        ),
    ] = "0",
    as_json: AsJson = False,
) -> None:
    from mirror.store.errors import StoreError

    path = loaded(config, {"cache_dir": cache_dir}).config.cache.dir
    limiter = _limiter(rate)
    become_owner(path, 2)
    require_cache(path, 2, "blobs")
    try:
        run = _run(path, limiter, quick=quick, repair=repair, show=not as_json)
    except (StoreError, OSError) as error:
        fail(str(error), 2)
    if as_json:
        json_document(_report(run))
    else:
        say(_summary(run, run.quarantine, repair=repair))
    raise typer.Exit(1 if run.cursor.wrong else 0)


def _limiter(rate: str) -> "RateLimiter":
    from mirror.config.types import parse_size
    from mirror.util.rate_limiter import RateLimiter

    try:
        return RateLimiter(parse_size(rate))
    except ValueError:
        fail(f"--rate: must be a size, for instance 50MiB, not {rate!r}", 2)


def _run(path: Path, limiter: "RateLimiter", *, quick: bool, repair: bool, show: bool) -> "Verification":
    """Check the cache in `path`, from where an interrupted run stopped. Raises StoreError or OSError."""
    from mirror.manage.management import Management
    from mirror.store.errors import translated
    from mirror.store.hosted.opened import open_cache

    start_collector()
    with translated("verify"), closing(open_cache(path)) as folder:
        management = Management(folder)
        run = management.upkeep.begin_verification(limiter, quick=quick, repair=repair).now()
        with _progress(run, show=show) as progress:
            _go_through(management, run, progress)
    return run


def _go_through(
    management: "Management", run: "Verification", progress: "Callable[[Finding | None], None]"
) -> None:
    with closing(iter(management.upkeep.verify(run))) as steps:
        try:
            for step in steps:
                progress(step.finding)
        except KeyboardInterrupt:
            tell(f"Stopped after {_amount(run)}. The next `registry-mirror verify` goes on from there.")
            raise typer.Exit(INTERRUPTED) from None


def _amount(run: "Verification") -> str:
    done, total = run.progress.done, run.progress.total or 0
    if run.cursor.quick:
        return f"{done} of {total} blobs"
    return f"{size(done)} of {size(total)}"


@contextmanager
def _progress(run: "Verification", *, show: bool) -> "Iterator[Callable[[Finding | None], None]]":
    """Print findings as they come, and on a terminal a progress bar."""
    if show and sys.stderr.isatty():
        with _bar(run) as progress:
            yield progress
        return

    def print_finding(finding: "Finding | None") -> None:
        if show and finding is not None:
            say(_line(finding))

    yield print_finding


@contextmanager
def _bar(run: "Verification") -> "Iterator[Callable[[Finding | None], None]]":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    quick = run.cursor.quick
    amount = MofNCompleteColumn() if quick else DownloadColumn(binary_units=True)
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("blobs" if quick else "read", total=run.progress.total)

        def progress(finding: "Finding | None") -> None:
            bar.update(task, completed=run.progress.done)
            if finding is not None:
                # Whole lines, whatever the width of the terminal.
                print(printable(_line(finding)), file=bar.console.file, flush=True)

        yield progress


def _line(finding: "Finding") -> str:
    done = f" ({finding.repair})" if finding.repair else ""
    return f"{finding.subject}: {finding.damage}{done}"


def _report(run: "Verification") -> dict[str, object]:
    cursor = run.cursor
    return {
        "checked": cursor.checked,
        "bytes": cursor.bytes,
        "wrong": cursor.wrong,
        "leftovers": cursor.leftovers,
        "findings": [
            {"what": each.subject, "wrong": each.damage, "done": each.repair} for each in run.findings
        ],
    }


def _summary(run: "Verification", quarantine: Path, *, repair: bool) -> str:
    cursor = run.cursor
    checked = f"{cursor.checked} blob{'' if cursor.checked == 1 else 's'} checked"
    read = "" if cursor.quick else f", {size(cursor.bytes)} read"
    found = f"{cursor.wrong} wrong" if cursor.wrong else "nothing wrong"
    left = f", {cursor.leftovers} files that a crash or a lost database left" if cursor.leftovers else ""
    return f"{checked}{read}: {found}{left}{_advice(run, quarantine, repair=repair)}"


def _advice(run: "Verification", quarantine: Path, *, repair: bool) -> str:
    """Say what was repaired, or that a repair is possible."""
    if not (run.cursor.wrong or run.cursor.leftovers):
        return ""
    if not repair:
        return "; --repair repairs that"
    done = sum(each.repair is not None for each in run.findings)
    moved = any(each.quarantined for each in run.findings)
    return f"; {done} repaired{f'; wrong files are in {quarantine} now' if moved else ''}"
