"""The commands about the configuration: `config check`, `config show`."""

from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import fail, loaded
from mirror.cli.notes import config_notes
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile, Listen, Offline, Upstream
from mirror.cli.output import json_document, say, tell

if TYPE_CHECKING:
    from mirror.config.loader import Loaded
    from mirror.config.validation import Option

CHECK_HELP = """Check the configuration, and say what is wrong with it.

\b
    registry-mirror config check
    registry-mirror config check ./mirror.toml
    registry-mirror config check --config ./mirror.toml

Without FILE it checks what `serve` would use: $REGISTRY_MIRROR_CONFIG or /etc/registry-mirror/mirror.toml,
and the environment. Of each account it says where the password comes from: credential helpers and
password_command are run for that, and no registry is asked. The exit status is 0 if the configuration can
be used, and else 2. A note on standard error names a valid value that may be a mistake.
"""

SHOW_HELP = """Show every option, its value, and where the value came from.

\b
    registry-mirror config show
    registry-mirror config show ./mirror.toml | grep cache

Passwords are masked.
"""


File = Annotated[
    str | None, typer.Argument(metavar="FILE", help="TOML file, as --config.", show_default=False)
]

app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True, rich_markup_mode=None)


def add_to(program: typer.Typer) -> None:
    """Add the commands of this module."""
    program.add_typer(app, name="config")


@app.command("check", cls=Command, help=CHECK_HELP)
def config_check(
    file: File = None,
    config: ConfigFile = None,
) -> None:
    chosen = _chosen(file, config)
    read = loaded(chosen, {})
    checked = read.config
    say(f"{_file(chosen) or 'defaults and environment'}: ok")
    _show_accounts(read)
    for each in config_notes(checked):
        tell(f"Note: {each}")
    if checked.cache.pins:
        from mirror.cli.pins import note_excess

        note_excess(checked)


@app.command("show", cls=Command, help=SHOW_HELP)
def config_show(
    file: File = None,
    config: ConfigFile = None,
    listen: Listen = None,
    cache_dir: CacheDir = None,
    upstream: Upstream = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    flags = {"listen": listen, "cache_dir": cache_dir, "upstreams": upstream, "offline": offline}
    chosen = _chosen(file, config)
    read = loaded(chosen, flags)
    if as_json:
        values = {key: {"value": exact(value), "from": origin} for key, value, _, origin in _rows(read)}
        json_document(values)
        return
    from mirror.config.display import shown

    rows = [(key, shown(value, option), origin) for key, value, option, origin in _rows(read)]
    # Whole lines, whatever the width of the terminal: people search and compare them.
    keys, values_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for key, text, origin in rows:
        say(f"{key:<{keys}}  {text:<{min(values_width, 40)}}  {origin}")
    tell(f"Configuration file: {_file(chosen) or 'none'}")


def _show_accounts(read: "Loaded") -> None:
    """Print a line for each account: where it comes from. None for a configuration without one."""
    if not any(end.logins() for each in read.config.upstreams for end in (each, *each.sources)):
        return
    from mirror.cli.config.accounts import account_lines

    for line in account_lines(read):
        (tell if line.doubtful else say)(f"Note: {line.text}" if line.doubtful else line.text)


def _chosen(file: str | None, option: str | None) -> str | None:
    """Return the file that the argument FILE or --config names; the command ends with 2 if both do."""
    if file is not None and option is not None:
        fail(f"FILE is {file!r} and --config is {option!r}: give one of them", 2)
    return option if file is None else file


def _file(given: str | None) -> str | None:
    """Return the path of the file that is read if `given` is the value of --config."""
    from mirror.config.loader import config_file, environment

    found = config_file(given, environment())
    return None if found is None else str(found)


def _rows(read: "Loaded") -> list[tuple[str, object, "Option", str]]:
    """Return dotted key, value, option and origin of every option of every section and named table."""
    from mirror.config.display import option_rows

    return [
        (key, value, option, read.origins.get(key, "default"))
        for key, value, option, _ in option_rows(read.config)
    ]


def exact(value: object) -> str:
    """Return a value for programs: sizes in bytes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if value == float("inf"):
        return "forever"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
