"""The program as typer has it: `serve`, words that people try, and the commands of `mirror.cli.commands`."""

from typing import Annotated

import typer

from mirror import __version__
from mirror.cli.commands import CommandGroup
from mirror.cli.common import fail
from mirror.cli.options import CacheDir, Command, ConfigFile, Listen, Offline, Upstream
from mirror.cli.output import say
from mirror.cli.serve import Flags, run_server

SERVE_HELP = """Run the mirror in the foreground.

Without options it mirrors Docker Hub and ten other large registries on 127.0.0.1:5000:

    registry-mirror serve

For a whole network, with the cache on a large disk:

    registry-mirror serve --listen 0.0.0.0:5000 --cache-dir /srv/mirror

For another registry, or with another server for a registry:

    registry-mirror serve --upstream docker.io=http://10.0.0.7:5000

Without any network, from the cache alone:

    registry-mirror serve --offline

Clients name the registry in front of the image, for instance
docker pull 127.0.0.1:5000/quay.io/prometheus/busybox; a name without a registry means the first upstream.

SIGTERM or Ctrl-C ends the mirror when running responses are finished, after server.shutdown_timeout at most;
a second one ends it at once. SIGHUP takes up a changed configuration and a renewed certificate, SIGUSR2 a
newer program, without a connection refused.
"""

app = typer.Typer(
    name="registry-mirror",
    cls=CommandGroup,
    help="A pull-through mirror for container registries: each blob is downloaded once, and kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        say(f"registry-mirror {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(help=SERVE_HELP, cls=Command)
def serve(
    config: ConfigFile = None,
    listen: Listen = None,
    cache_dir: CacheDir = None,
    upstream: Upstream = None,
    offline: Offline = False,
) -> None:
    flags = Flags(listen or [], upstream or [], cache_dir=cache_dir, config=config, offline=offline)
    raise typer.Exit(run_server(flags))


@app.command("help", hidden=True)
def _help(ctx: typer.Context) -> None:
    """Print the commands."""
    say(ctx.find_root().get_help())


@app.command("version", hidden=True)
def _print_version() -> None:
    """Print the version."""
    _version(asked=True)


@app.command("status", hidden=True)
def _status() -> None:
    """Name the places that show what a mirror does."""
    fail(
        "there is no command named status. The service: systemctl status registry-mirror\n"
        "A running mirror: curl http://127.0.0.1:5000/readyz. The cache: registry-mirror du",
        2,
    )
