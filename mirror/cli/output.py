"""Output of commands: times, tables for people and for programs, JSON.

All output goes through here: names, paths and findings may come from a cache folder, an image or an upstream,
and must not command the operator's terminal.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TextIO

from mirror.util.terminal_log import printable

# How the head of a table stands out on a terminal.
BOLD, RESET = "\x1b[1m", "\x1b[0m"

# Units of elapsed time: seconds in each, and its name.
ELAPSED = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


def say(message: str) -> None:
    """Print to standard output, with control characters escaped in each line."""
    _write(_printable_lines(message))


def tell(message: str) -> None:
    """Print to standard error, as `say` does: for people, beside what programs may read."""
    _write(_printable_lines(message), sys.stderr)


def _write(text: str, stream: TextIO | None = None) -> None:
    """Write a line at once, so that no error of the reader waits for the end of the program."""
    print(text, file=stream or sys.stdout, flush=True)


def _printable_lines(message: str) -> str:
    return "\n".join(printable(line) for line in message.split("\n"))


def moment(seconds: float | None) -> str:
    """Return a time since the epoch: as elapsed time on a terminal, else in UTC."""
    if seconds is None:
        return "-"
    if not sys.stdout.isatty():
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    return ago(time.time() - seconds)


def day(seconds: float) -> str:
    """Return the date of a time since the epoch, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def ago(seconds: float) -> str:
    """Return elapsed time in the largest unit that has passed at least once."""
    for length, name in ELAPSED:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """Print columns on a terminal, those in `right` flush right; else lines of values separated by tabs.

    On a narrow terminal the columns in `optional` are left out, the first one first, until a line fits. No
    value is wrapped or shortened: people copy names.
    """
    escaped = (tuple(printable(cell) for cell in row) for row in rows)
    if sys.stdout.isatty():
        columns = [*zip(*escaped, strict=True)] or [()] * len(head)
        _columns(dict(zip(head, columns, strict=True)), right, optional)
        return
    for row in chain((head,), escaped):
        _write("\t".join(row))


def _columns(columns: dict[str, tuple[str, ...]], right: Sequence[str], optional: Sequence[str]) -> None:
    widths = {name: max(map(len, (name, *values))) for name, values in columns.items()}
    for name in optional:
        if sum(widths.values()) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns:
            del widths[name]

    def line(row: Sequence[str]) -> str:
        cells = zip(widths, row, strict=True)
        padded = (
            text.rjust(widths[name]) if name in right else text.ljust(widths[name]) for name, text in cells
        )
        return "  ".join(padded).rstrip()

    _write(f"{BOLD}{line([*widths])}{RESET}")
    for row in zip(*(columns[name] for name in widths), strict=True):
        _write(line(row))


def json_document(value: object) -> None:
    """Print a JSON document."""
    _write(_json(value, indent=2))


def json_line(value: object) -> None:
    """Print a JSON value on a line of its own, at once."""
    _write(_json(value))


def json_list(items: Iterable[object]) -> None:
    """Print a JSON list, one item at a time."""
    between = "[\n"
    for item in items:
        print(between + _json(item), end="", flush=True)
        between = ",\n"
    _write("[]" if between == "[\n" else "\n]")


def _json(value: object, indent: int | None = None) -> str:
    """Return JSON in ASCII; `json` leaves one control character as it is."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")
