"""The command line: the program, its subcommands, and `serve`."""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from mirror import __version__
from mirror.cli import cache, pins, settings, verify
from mirror.cli.common import fail, loaded, require_owner, start_collector
from mirror.cli.options import CacheDir, Command, ConfigFile, Listen, Offline, Upstream
from mirror.cli.output import say, tell

if TYPE_CHECKING:
    from mirror.config.schema import Config

SERVE_HELP = """Run the mirror in the foreground.

Without options it mirrors Docker Hub and six other large registries on 127.0.0.1:5000:

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
a second one ends it at once. SIGHUP loads a renewed certificate and, if server.workers is 2 or more, every
change of the configuration.
"""

app = typer.Typer(
    name="registry-mirror",
    help="A pull-through mirror for container registries: each blob is downloaded once, and kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(settings.app, name="config")


def main() -> None:
    """Run the `registry-mirror` command."""
    gc.disable()  # until `start_collector`
    try:
        app(prog_name="registry-mirror")
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):
            _end_without_reader()
        raise


def _end_without_reader() -> None:
    """End as programs do whose output nothing reads any more (`ls | head`): quietly, by SIGPIPE.

    Python ignores that signal, so that every command could first tidy up after the error of its write.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)


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
    flags = {"listen": listen, "cache_dir": cache_dir, "upstreams": upstream, "offline": offline}
    wanted = loaded(config, flags).config
    from mirror.config.loader import environment, load
    from mirror.server.run import run
    from mirror.store.errors import StoreError, reason_of
    from mirror.util.log import configure_later

    start_collector()
    configure_later(wanted.log, sys.stderr)
    require_owner(wanted.cache.dir, 1, "run the mirror as that user, or choose another folder: --cache-dir")
    new = not os.path.isdir(wanted.cache.dir / "books")  # no error if it cannot be reached
    announce = partial(_announce, new=new)
    try:
        status = run(wanted, lambda: load(config, environment(), flags).config, announce)
    except (StoreError, OSError) as error:
        fail(reason_of(error), 1)
    raise typer.Exit(status)


def _announce(config: "Config", addresses: Sequence[str], *, new: bool) -> None:
    from mirror.cli.banner import banner, room
    from mirror.system.addresses import network_addresses

    tell(banner(config, addresses, network_addresses(), room(config), new=new))


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


app.command(help=verify.HELP, cls=Command)(verify.verify)
cache.add_to(app)
pins.add_to(app)
