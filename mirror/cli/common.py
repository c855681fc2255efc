"""What the commands have in common: options, the configuration, the cache folder, tables and units."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from mirror.config.loader import ConfigError, Loaded, environment, load
from mirror.config.schema import Config
from mirror.oci.image_pattern import ImagePattern
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError, translated
from mirror.util.log import configure

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file; config/mirror.toml has every option."),
]
CacheDir = Annotated[Path | None, typer.Option("--cache-dir", metavar="DIR", help="Folder of the cache.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

# How long ago something was, in words: seconds in one, and its name.
SPANS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


def loaded(file: Path | None, flags: Mapping[str, object]) -> Loaded:
    """The configuration; the command ends with 2 where it cannot be used."""
    try:
        return load(file, environment(), flags)
    except ConfigError as error:
        fail(str(error), 2)


def fail(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"registry-mirror: {line}", err=True)
    raise typer.Exit(code)


def tell(message: str) -> None:
    """To people, beside what machines may read."""
    typer.echo(message, err=True)


@contextmanager
def opened(file: Path | None, cache_dir: Path | None) -> Iterator[tuple[CacheDirectory, Config]]:
    """The cache folder, whether a mirror runs on it or not; the command ends with 1 where there is none."""
    config = loaded(file, {"cache_dir": cache_dir}).config
    configure(config.log, sys.stderr)
    path = config.cache.dir
    try:
        with translated(f"cannot use the cache folder {path}"):
            if not (path / "books").is_dir():
                fail(
                    f"there is no cache in {path}: name its folder with --cache-dir or --config,\n"
                    "or start the mirror, which makes it: registry-mirror serve",
                    1,
                )
            folder = CacheDirectory(path, config.cache)
            try:
                yield folder, config
            finally:
                folder.close()
    except StoreError as error:
        fail(str(error), 1)


def pattern(text: str, config: Config, *, any_tag: bool = False) -> ImagePattern:
    """The images that are meant; the command ends with 2 where none can be."""
    try:
        return ImagePattern.parse(text, config.names().names, any_tag=any_tag)
    except ValueError as error:
        fail(str(error), 2)


def size(count: int) -> str:
    """Bytes in units of 1024, with three digits."""
    value, unit = float(count), UNITS[0]
    for unit in UNITS:
        if value < 999.5 or unit == UNITS[-1]:
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


def moment(seconds: float | None) -> str:
    """A time since the epoch: in words on a terminal, else in UTC."""
    if seconds is None:
        return "-"
    if not sys.stdout.isatty():
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ago(time.time() - seconds)


def ago(seconds: float) -> str:
    """In the largest unit of which there is one."""
    for length, name in SPANS:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """For people on a terminal, columns in `right` flush right; else one line each, separated by tabs."""
    if not sys.stdout.isatty():
        for row in chain((head,), rows):
            typer.echo("\t".join(row))
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        shown.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    Console(markup=False, highlight=False).print(shown)


def json_list(items: Iterable[object]) -> None:
    """A list, an item at a time."""
    between = "[\n"
    for item in items:
        typer.echo(between + json.dumps(item), nl=False)
        between = ",\n"
    typer.echo("[]" if between == "[\n" else "\n]")
