"""What commands print: bytes and times in units, tables for people and for programs, JSON."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import chain

import typer

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

# Units of elapsed time: seconds in each, and its name.
ELAPSED = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


def tell(message: str) -> None:
    """Print to standard error: for people, beside what programs may read."""
    typer.echo(message, err=True)


def size(count: int) -> str:
    """Return bytes in units of 1024, with three digits."""
    value, unit = float(count), UNITS[0]
    for unit in UNITS:
        if value < 999.5 or unit == UNITS[-1]:
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


def moment(seconds: float | None) -> str:
    """Return a time since the epoch: as elapsed time on a terminal, else in UTC."""
    if seconds is None:
        return "-"
    if not sys.stdout.isatty():
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    return ago(time.time() - seconds)


def ago(seconds: float) -> str:
    """Return elapsed time in the largest unit that has passed at least once."""
    for length, name in ELAPSED:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print columns on a terminal, those in `right` flush right; else lines of values separated by tabs."""
    if not sys.stdout.isatty():
        for row in chain((head,), rows):
            typer.echo("\t".join(row))
        return
    _columns(head, list(rows), right)


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = (
            value.rjust(width) if name in right else value.ljust(width)
            for name, value, width in zip(head, row, widths, strict=True)
        )
        return "  ".join(cells).rstrip()

    typer.secho(line(head), bold=True)
    for row in rows:
        typer.echo(line(row))


def json_list(items: Iterable[object]) -> None:
    """Print a JSON list, one item at a time."""
    between = "[\n"
    for item in items:
        typer.echo(between + json.dumps(item), nl=False)
        between = ",\n"
    typer.echo("[]" if between == "[\n" else "\n]")
