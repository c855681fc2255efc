"""The `top` command: what a running mirror does now, in a terminal."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import INTERRUPTED, fail, loaded
from mirror.cli.options import AsJson, CAFile, Command, ConfigFile

if TYPE_CHECKING:
    from mirror.cli.remote.admin_client import AdminClient

HELP = """Show what a running mirror does: requests, downloads, upstreams, the disk, troubles.

It asks the mirror's pages, whose address is admin.listen of the configuration. `q` ends it.

\b
    registry-mirror top
    registry-mirror top --once
    registry-mirror top --once --json
    registry-mirror top --server https://mirror.lan:5002 --token-file ~/token
"""

# The keys that end it: q, Q and Escape.
QUIT = b"qQ\x1b"

# Width of what is printed where no terminal has one, in columns.
PRINTED_COLUMNS = 160


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command, help=HELP)(top)


def top(
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Pages of the mirror, http://HOST:PORT or https://HOST:PORT. Default: $REGISTRY_MIRROR_URL, "
            "or else admin.listen of the configuration.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with a token for the action admin, which shows everything. Default: "
            "$REGISTRY_MIRROR_TOKEN, or else none.",
            show_default=False,
        ),
    ] = None,
    ca: CAFile = None,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    as_json: AsJson = False,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", help="Time between two looks.", min=0.2, max=3600),
    ] = 1.0,
    config: ConfigFile = None,
) -> None:
    import sys

    from mirror.cli.remote.admin_client import NoAnswer

    try:
        with closing(_client(server, token_file, ca, config)) as client:
            if as_json:
                _print_json(client, interval, once=once)
            elif once or not sys.stdout.isatty():
                _print_once(client)
            else:
                _show(client, interval)
    except NoAnswer as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _client(server: str | None, token_file: str | None, ca: str | None, config: str | None) -> "AdminClient":
    from mirror.cli.remote.admin_client import (
        URL_VARIABLE,
        AdminClient,
        PagesPlace,
        configured_place,
        token_of,
    )
    from mirror.config.loader import environment

    env = environment()
    token = token_of(None if token_file is None else Path(token_file), env)
    url = server or env.get(URL_VARIABLE)
    place = configured_place(loaded(config, {}).config) if not url else PagesPlace(url)
    return AdminClient(place, token, ca=ca)


def _print_json(client: "AdminClient", interval: float, *, once: bool) -> None:
    import time

    from mirror.cli.operate.snapshot import ask
    from mirror.cli.output import json_document, json_line

    if once:
        json_document(ask(client))
        return
    while True:
        json_line(ask(client))
        time.sleep(interval)


def _print_once(client: "AdminClient") -> None:
    import shutil
    import sys
    from io import StringIO

    from rich.console import Console

    from mirror.cli.operate.now_screen import screen
    from mirror.cli.operate.snapshot import ask, understood
    from mirror.cli.output import say

    snapshot = understood(ask(client))
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        Console().print(screen(snapshot, client.url, columns, None))
        return
    text = StringIO()
    Console(file=text, width=PRINTED_COLUMNS).print(screen(snapshot, client.url, PRINTED_COLUMNS, None))
    say("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _show(client: "AdminClient", interval: float) -> None:
    """Show the screen until a key ends it. A mirror that stops answering is waited for."""
    from rich.console import Console
    from rich.live import Live

    from mirror.cli.operate.keyboard import keyboard
    from mirror.cli.operate.now_screen import screen
    from mirror.cli.operate.snapshot import ask, understood
    from mirror.cli.remote.admin_client import NoAnswer

    snapshot = understood(ask(client))  # without a first answer, the reason is an error
    console, note = Console(), ""
    with keyboard() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            size = console.size
            live.update(screen(snapshot, client.url, size.width, size.height, note), refresh=True)
            if keys.wait(interval, QUIT):
                return
            try:
                snapshot, note = understood(ask(client)), ""
            except NoAnswer as error:
                note = str(error)
