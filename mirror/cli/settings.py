"""The commands about the configuration: `config check`, `config show`."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import loaded
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile, Listen, Offline, Upstream
from mirror.cli.output import tell

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mirror.config.loader import Loaded

CHECK_HELP = """Check the configuration, and say what is wrong with it.

\b
    registry-mirror config check
    registry-mirror config check ./mirror.toml

Without FILE it checks what `serve` would use: $REGISTRY_MIRROR_CONFIG or /etc/registry-mirror/mirror.toml,
and the environment. The exit status is 0 if the configuration can be used, and else 2.
"""

SHOW_HELP = """Show every option, its value, and where the value came from.

\b
    registry-mirror config show
    registry-mirror config show --config ./mirror.toml | grep cache

Passwords are masked.
"""

# What 0 means, by option.
ZEROS = {"cache.max_size": "no limit", "cache.scrub": "off"}

UNITS = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))

app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check", cls=Command, help=CHECK_HELP)
def config_check(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="TOML file.", show_default=False)] = None,
) -> None:
    config = loaded(file, {}).config
    typer.echo(f"{file or _file(None) or 'defaults and environment'}: ok")
    if config.cache.pins:
        from mirror.cli.pins import note_excess

        note_excess(config)


@app.command("show", cls=Command, help=SHOW_HELP)
def config_show(
    config: ConfigFile = None,
    listen: Listen = None,
    cache_dir: CacheDir = None,
    upstream: Upstream = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    flags = {"listen": listen, "cache_dir": cache_dir, "upstreams": upstream, "offline": offline}
    read = loaded(config, flags)
    if as_json:
        values = {key: {"value": exact(value), "from": origin} for key, value, origin in _rows(read)}
        typer.echo(json.dumps(values, indent=2))
        return
    rows = [(key, shown(key, value), origin) for key, value, origin in _rows(read)]
    # Whole lines, whatever the width of the terminal: people search and compare them.
    keys, values_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for key, text, origin in rows:
        typer.echo(f"{key:<{keys}}  {text:<{min(values_width, 40)}}  {origin}")
    tell(f"Configuration file: {_file(config) or 'none'}")


def _file(given: str | None) -> str | None:
    """Return the path of the file that is read if `given` is the value of --config."""
    from mirror.config.loader import config_file, environment

    found = config_file(given, environment())
    return None if found is None else str(found)


def _rows(read: "Loaded") -> list[tuple[str, object, str]]:
    """Return dotted key, value and origin of every option of every section and upstream."""
    config = read.config
    options = [*_options("", config)]
    for upstream in config.upstreams:
        options += _options(f"upstream.{upstream.name}.", upstream)
    return [(key, value, read.origins.get(key, "default")) for key, value in options]


def _options(prefix: str, table: "BaseModel") -> Iterator[tuple[str, object]]:
    """Yield dotted key and value of every option below `prefix`; tables in a list are counted from 1."""
    from pydantic import BaseModel

    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from _options(f"{prefix}{name}.", value)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            if name != "upstreams":
                for number, each in enumerate(value, 1):
                    yield from _options(f"{prefix}{name}.{number}.", each)
        else:
            yield f"{prefix}{name}", value


def shown(key: str, value: object) -> str:
    """Return a value for people: sizes in units, "-" for what is not set."""
    text = _size(value) or exact(value) or "-"
    return f"0 ({ZEROS[key]})" if text == "0" and key in ZEROS else text


def exact(value: object) -> str:
    """Return a value for programs: sizes in bytes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if value == float("inf"):
        return "forever"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _size(value: object) -> str:
    """Return an option's size in the largest unit that divides it; "" if it is no size."""
    from pydantic import ByteSize

    from mirror.config.types import Amount

    count: int | None = value if isinstance(value, ByteSize) else None
    if isinstance(value, Amount) and not value.percent:
        count = value.bytes
    if count is None:
        return ""
    return next((f"{count // unit}{name}" for unit, name in UNITS if count and not count % unit), str(count))
