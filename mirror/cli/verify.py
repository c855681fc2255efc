"""`registry-mirror verify`: whether the cache is what it claims to be."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import fail, require_access
from mirror.cli.options import AsJson, CacheDir, ConfigFile

if TYPE_CHECKING:
    from mirror.store.blobs.fsck import Finding, Fsck, FsckCursor
    from mirror.util.rate_limiter import RateLimiter

HELP = """Check the cache: every file against its digest.

Every entry has its file, every file its entry, and every file hashes to its name. Beside a running mirror
or a stopped one. Says what is wrong, one line each; the exit status is 0 when nothing
is, 1 when something is, and 2 when it could not be checked. What was interrupted goes on where it stopped.

Read no more than so much per second, so that a busy disk serves others:

    registry-mirror verify --rate 50MiB

--repair puts right what is wrong: files are moved to the folder `quarantine` of the cache, and fetched anew
when somebody asks for them; files without an entry, which a crash or a lost database leaves, get one.
"""

# The cursor is written this often, in seconds.
SAVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class VerifyRun:
    """One check: what it has found, and what it goes through in the unit that its progress is shown in."""

    fsck: "Fsck"
    findings: "list[Finding]"
    total: int

    @property
    def done(self) -> int:
        return self.fsck.cursor.checked if self.fsck.cursor.quick else self.fsck.cursor.bytes


def verify(
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes, and read nothing.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what is wrong.")] = False,
    rate: Annotated[str, typer.Option("--rate", metavar="SIZE", help="Bytes per second at most.")] = "0",
    as_json: AsJson = False,
) -> None:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from mirror.config.loader import ConfigError, environment, load
    from mirror.store.errors import StoreError
    from mirror.util.rate_limiter import RateLimiter

    try:
        path = load(config, environment(), {"cache_dir": cache_dir}).config.cache.dir
        pace = RateLimiter(TypeAdapter(ByteSize).validate_python(rate))
        run = _run(path, pace, quick=quick, repair=repair, show=not as_json)
    except ValidationError:
        fail(f"--rate: must be a size, for instance 50MiB, not {rate!r}", 2)
    except (ConfigError, StoreError, OSError) as error:
        fail(str(error), 2)
    cursor = run.fsck.cursor
    if as_json:
        found = [{"what": each.subject, "wrong": each.damage, "done": each.repair} for each in run.findings]
        result = {"checked": cursor.checked, "bytes": cursor.bytes, "wrong": cursor.wrong}
        typer.echo(json.dumps({**result, "leftovers": cursor.leftovers, "findings": found}, indent=2))
    else:
        typer.echo(_summary(cursor, repair=repair))
    raise typer.Exit(1 if cursor.wrong else 0)


def _run(path: Path, pace: "RateLimiter", *, quick: bool, repair: bool, show: bool) -> VerifyRun:
    """Raises StoreError or OSError."""
    from mirror.store.blobs.fsck import Fsck, FsckCursor
    from mirror.store.cache_dir import CacheDirectory
    from mirror.store.errors import StoreError, translated

    require_access(path, 2)
    if not (path / "blobs").is_dir():
        raise StoreError(f"{path} is no cache folder: there is no folder named blobs in it")
    place = path / "verify.cursor"
    with translated("verify"), closing(CacheDirectory(path)) as folder:
        cursor = FsckCursor.load(place, quick=quick)
        size, count = folder.blobs.stats()
        fsck = Fsck(path / "blobs", folder.blobs, cursor, repair=repair)
        run = VerifyRun(fsck, [], count if quick else size)
        with _shown(run, show=show) as progress:
            _go_through(run, pace, place, progress)
        if repair:
            folder.recovery.finish_rebuild()
    place.unlink(missing_ok=True)
    return run


def _go_through(
    run: VerifyRun, pace: "RateLimiter", place: Path, progress: "Callable[[Finding | None], None]"
) -> None:
    cursor, saved = run.fsck.cursor, time.monotonic()
    try:
        for step in run.fsck.steps():
            if step.finding is not None:
                run.findings.append(step.finding)
            progress(step.finding)
            time.sleep(pace.pause(step.read))
            if time.monotonic() - saved > SAVE_SECONDS:
                cursor.save(place)
                saved = time.monotonic()
    except BaseException:
        cursor.save(place)
        raise


@contextmanager
def _shown(run: VerifyRun, *, show: bool) -> "Iterator[Callable[[Finding | None], None]]":
    """Findings as they come, and on a terminal how far it is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task("files" if run.fsck.cursor.quick else "bytes", total=run.total)

        def progress(finding: "Finding | None") -> None:
            bar.update(task, completed=run.done)
            if show and finding is not None:
                # Whole lines, whatever the width of the terminal.
                print(_line(finding), file=sys.stdout if bar.disable else bar.console.file, flush=True)

        yield progress


def _line(finding: "Finding") -> str:
    done = f" ({finding.repair})" if finding.repair else ""
    return f"{finding.subject}: {finding.damage}{done}"


def _summary(cursor: "FsckCursor", *, repair: bool) -> str:
    what = f"{cursor.checked} blobs checked" + ("" if cursor.quick else f", {cursor.bytes} bytes read")
    found = f"{cursor.wrong} wrong" if cursor.wrong else "nothing wrong"
    left = f", {cursor.leftovers} files that a crash or a lost database left" if cursor.leftovers else ""
    hint = "" if repair or not (cursor.wrong or cursor.leftovers) else "; --repair puts that right"
    return f"{what}: {found}{left}{hint}"
