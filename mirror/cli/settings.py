"""The commands about the configuration: `config check`, `config show`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import loaded
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile, Listen, Offline, Upstream
from mirror.cli.output import json_document, say, tell

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

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


app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check", cls=Command, help=CHECK_HELP)
def config_check(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="TOML file.", show_default=False)] = None,
) -> None:
    config = loaded(file, {}).config
    say(f"{file or _file(None) or 'defaults and environment'}: ok")
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
        values = {key: {"value": exact(value), "from": origin} for key, value, _, origin in _rows(read)}
        json_document(values)
        return
    from mirror.config.display import shown

    rows = [(key, shown(value, field), origin) for key, value, field, origin in _rows(read)]
    # Whole lines, whatever the width of the terminal: people search and compare them.
    keys, values_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for key, text, origin in rows:
        say(f"{key:<{keys}}  {text:<{min(values_width, 40)}}  {origin}")
    tell(f"Configuration file: {_file(config) or 'none'}")


def _file(given: str | None) -> str | None:
    """Return the path of the file that is read if `given` is the value of --config."""
    from mirror.config.loader import config_file, environment

    found = config_file(given, environment())
    return None if found is None else str(found)


def _rows(read: "Loaded") -> list[tuple[str, object, "FieldInfo", str]]:
    """Return dotted key, value, field and origin of every option of every section and upstream."""
    config = read.config
    options = [*_options("", config)]
    for upstream in config.upstreams:
        options += _options(f"upstream.{upstream.name}.", upstream)
    return [(key, value, field, read.origins.get(key, "default")) for key, value, field in options]


def _options(prefix: str, table: "BaseModel") -> Iterator[tuple[str, object, "FieldInfo"]]:
    """Yield dotted key, value and field of every option below `prefix`; tables in a list count from 1."""
    from pydantic import BaseModel

    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from _options(f"{prefix}{name}.", value)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            if name != "upstreams":
                for number, each in enumerate(value, 1):
                    yield from _options(f"{prefix}{name}.{number}.", each)
        else:
            yield f"{prefix}{name}", value, field


def exact(value: object) -> str:
    """Return a value for programs: sizes in bytes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if value == float("inf"):
        return "forever"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
