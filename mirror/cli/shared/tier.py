"""The commands about the shared tier: `shared status`, `shared verify`, `shared gc`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mirror.cli.common import fail, loaded
from mirror.cli.options import AsJson, Command, ConfigFile
from mirror.cli.output import json_document, say, table, tell

if TYPE_CHECKING:
    from mirror.shared.engines import Engines
    from mirror.shared.interfaces import TierObject

STATUS_HELP = """Show whether bucket and coordinator can be used, and what is stored.

\b
    registry-mirror shared status
    registry-mirror shared status --json

Exit status 1 if something of it cannot be used.
"""

VERIFY_HELP = """Read every blob of the bucket, and list those that have not their digest.

\b
    registry-mirror shared verify
    registry-mirror shared verify --remove

Exit status 1 if there are any. Mirrors verify what they read from the bucket in any case.
"""

GC_HELP = """Remove blobs that no mirror has used for long, as `max_size` and `max_age` of [shared] say.

\b
    registry-mirror shared gc
    registry-mirror shared gc --older-than 30d --dry-run

One of the mirrors does that every ten minutes in any case. Kept are blobs that a mirror has pinned, and those
that were used or written in the last two hours. A removed blob is fetched upstream by the next mirror that
wants it, and written again.
"""

Remove = Annotated[bool, typer.Option("--remove", help="Remove them, so that they are fetched again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would go, and remove nothing.")]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="TIME", help="Time since the last use, in place of `max_age`."),
]

app = typer.Typer(
    help="Examine the tier that several mirrors share, verify and clean it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(program: typer.Typer) -> None:
    """Add the group of commands."""
    program.add_typer(app, name="shared")


@app.command("status", cls=Command, help=STATUS_HELP)
def shared_status(config: ConfigFile = None, as_json: AsJson = False) -> None:
    from msgspec import to_builtins

    from mirror.manage.shared.upkeep import examine
    from mirror.util.units import size

    report = _run(config, examine)
    if as_json:
        json_document(to_builtins(report))
    else:
        say(f"{report.bucket}: {report.blobs} blobs, {size(report.size)}")
        say(f"blobs: {report.reads or 'ok'}")
        say(f"leases: {report.leases or 'ok'}")
    _leave(1 if report.reads or report.leases else 0)


@app.command("verify", cls=Command, help=VERIFY_HELP)
def shared_verify(config: ConfigFile = None, remove: Remove = False, as_json: AsJson = False) -> None:
    from mirror.manage.shared.upkeep import wrong_blobs

    found = _run(config, lambda engines: _list_objects(engines, wrong_blobs(engines), remove=remove))
    _print(found, "wrong, removed" if remove else "wrong", as_json=as_json)
    _leave(1 if found else 0)


@app.command("gc", cls=Command, help=GC_HELP)
def shared_gc(
    older_than: OlderThan = None, config: ConfigFile = None, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    from mirror.manage.shared.upkeep import collect
    from mirror.shared.upkeep.plan import GRACE_SECONDS, TierLimits

    settings = loaded(config, {}).config.shared
    limits = TierLimits(settings.max_size, settings.max_age)
    if older_than is not None:
        age = _age(older_than)
        limits = TierLimits(settings.max_size, age, min(age, GRACE_SECONDS))
    if not limits.any and settings.bucket is not None:
        fail("nothing is to go: set max_size or max_age in [shared], or give --older-than", 2)
    found = _run(config, lambda engines: collect(engines, limits, dry=dry_run))
    _print(found, "would go" if dry_run else "removed", as_json=as_json)
    _leave(0)


def _age(text: str) -> float:
    from mirror.config.types import Timeout
    from mirror.config.validation import convert

    try:
        age: float = convert(text, Timeout)
    except ValueError as error:
        fail(f"--older-than {error}", 2)
    return age


async def _list_objects(
    engines: "Engines", found: "AsyncIterator[TierObject]", *, remove: bool
) -> "list[TierObject]":
    """Return the objects that were found; with `remove`, remove them from the bucket too."""
    each = [blob async for blob in found]
    for blob in each if remove else ():
        await engines.objects.remove(blob.digest)
    return each


def _print(found: "list[TierObject]", word: str, *, as_json: bool) -> None:
    if as_json:
        json_document([{"digest": str(each.digest), "size": each.size} for each in found])
        return
    if found:
        table(("DIGEST", "SIZE", "WHAT"), ((str(each.digest), str(each.size), word) for each in found))
    tell(f"{len(found)} blobs {word}")


def _run(config: str | None, work: "Callable[[Engines], Awaitable[Any]]") -> Any:
    """Return the result of work on the configured engines; the command ends with 1 if they fail."""
    from mirror.shared.engines import open_engines
    from mirror.shared.errors import TierError

    settings = loaded(config, {}).config.shared
    if settings.bucket is None:
        fail("nothing is shared: the configuration has no url in [shared] (docs/scaling.md)", 2)

    async def run() -> Any:
        engines = open_engines(settings)
        try:
            return await work(engines)
        finally:
            await engines.close()

    try:
        return asyncio.run(run())
    except TierError as error:
        with suppress(SystemExit):
            fail(str(error), 1)
        _leave(1)


def _leave(status: int) -> NoReturn:
    """End the command at once: threads of obstore may abort a Python that takes itself down (SIGABRT)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
