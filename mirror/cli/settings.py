"""The commands about the configuration: `config check`, `config show`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli.common import loaded
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile, Listen, Offline, Upstream

if TYPE_CHECKING:
    from mirror.config.loader import Loaded

app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check", cls=Command)
def config_check(file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Say whether FILE can be used, and if not, what is wrong with it."""
    config = loaded(file, {}).config
    typer.echo(f"{file}: ok")
    if config.cache.pins:
        from mirror.cli.pins import note_excess

        note_excess(config)


@app.command("show", cls=Command)
def config_show(
    config: ConfigFile = None,
    listen: Listen = None,
    cache_dir: CacheDir = None,
    upstream: Upstream = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Print the effective values and where each came from. Secrets are masked."""
    flags = {"listen": listen, "cache_dir": cache_dir, "upstreams": upstream, "offline": offline}
    read = loaded(config, flags)
    rows = list(_rows(read))
    if as_json:
        typer.echo(
            json.dumps({key: {"value": value, "from": origin} for key, value, origin in rows}, indent=2)
        )
        return
    # Whole lines, whatever the width of the terminal: these are searched, and compared.
    keys, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for key, value, origin in rows:
        typer.echo(f"{key:<{keys}}  {value:<{min(values, 40)}}  {origin}")


def _rows(read: "Loaded") -> "Sequence[tuple[str, str, str]]":
    """Dotted key, value as text, origin; for every option of every section and upstream."""
    values = read.config.model_dump(mode="json", exclude={"upstreams"})
    values["upstream"] = {each.name: each.model_dump(mode="json") for each in read.config.upstreams}
    return [
        (dotted, _text(value), read.origins.get(dotted, "default")) for dotted, value in _options("", values)
    ]


def _options(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Dotted key and value of every option below `prefix`; tables in a list are counted from 1."""
    for key, value in values.items():
        tables = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        within = {str(number): each for number, each in enumerate(value, 1)} if tables else value
        if isinstance(within, dict):
            yield from _options(f"{prefix}{key}.", within)
        else:
            yield f"{prefix}{key}", value


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
