"""The command line: one function per subcommand."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mirror import __version__
from mirror.cli import cache, pins, verify
from mirror.cli.common import AsJson, CacheDir, ConfigFile
from mirror.cli.common import fail as _fail
from mirror.cli.common import loaded as _load
from mirror.config.loader import Loaded, environment, load
from mirror.config.schema import Config
from mirror.server.run import run
from mirror.store.errors import StoreError
from mirror.util.log import configure

SERVE_HELP = """Run the mirror in the foreground.

Without any option it mirrors Docker Hub and the other large registries on 127.0.0.1:5000:

    registry-mirror serve

For a whole network, with the cache on a large disk:

    registry-mirror serve --listen 0.0.0.0:5000 --cache-dir /srv/mirror

In front of another registry, or of a stand-in for one:

    registry-mirror serve --upstream docker.io=http://10.0.0.7:5000

Docker Hub's pulls go through the first upstream that is named, every other one through its name:
docker pull 127.0.0.1:5000/quay.io/prometheus/busybox

Without any network, with what was pulled before:

    registry-mirror serve --offline

SIGTERM or Ctrl-C finishes what is being sent, up to server.shutdown_timeout; a second one ends at once.
SIGHUP takes up a renewed certificate and, with server.workers of 2 or more, everything that was changed.
"""

app = typer.Typer(
    name="registry-mirror",
    help="A pull-through mirror for container registries: every blob is downloaded once, and kept.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(
    help="Check and show the configuration.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(config_app, name="config")

Listen = Annotated[
    list[str] | None, typer.Option("--listen", metavar="HOST:PORT", help="Address to serve on; repeatable.")
]
Upstream = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream", metavar="NAME=URL", help="A registry to mirror; repeatable, the first is the default."
    ),
]

Offline = Annotated[
    bool,
    typer.Option("--offline", help="Ask no upstream for anything: serve what is here."),
]


def main() -> None:
    """The `registry-mirror` command."""
    app()


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"registry-mirror {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(help=SERVE_HELP)
def serve(
    config: ConfigFile = None,
    listen: Listen = None,
    cache_dir: CacheDir = None,
    upstream: Upstream = None,
    offline: Offline = False,
) -> None:
    flags = {"listen": listen, "cache_dir": cache_dir, "upstreams": upstream, "offline": offline}
    settings = _load(config, flags).config
    configure(settings.log, sys.stderr)
    try:
        status = run(settings, lambda: load(config, environment(), flags).config, _announce)
    except (StoreError, OSError) as error:
        _fail(f"{error}", 1)
    raise typer.Exit(status)


app.command(help=verify.HELP)(verify.verify)


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Say whether FILE can be used, and if not, what is wrong with it."""
    config = _load(file, {}).config
    typer.echo(f"{file}: ok")
    pins.note_excess(config)


@config_app.command("show")
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
    loaded = _load(config, flags)
    rows = list(_rows(loaded))
    if as_json:
        typer.echo(
            json.dumps({key: {"value": value, "from": origin} for key, value, origin in rows}, indent=2)
        )
        return
    # Whole lines, whatever the width of the terminal: these are searched, and compared.
    keys, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for key, value, origin in rows:
        typer.echo(f"{key:<{keys}}  {value:<{min(values, 40)}}  {origin}")


cache.add_to(app)
pins.add_to(app)


def _rows(loaded: Loaded) -> "Sequence[tuple[str, str, str]]":
    """Dotted key, value as text, origin; for every option of every section and upstream."""
    values = loaded.config.model_dump(mode="json", exclude={"upstreams"})
    values["upstream"] = {each.name: each.model_dump(mode="json") for each in loaded.config.upstreams}
    return [
        (dotted, _text(value), loaded.origins.get(dotted, "default"))
        for dotted, value in _options("", values)
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


def _announce(config: Config, addresses: Sequence[str]) -> None:
    typer.echo(_banner(config, addresses), err=True)


def _banner(config: Config, addresses: Sequence[str]) -> str:
    """What is served where, and what to put into Docker's configuration."""
    address, encrypted = _reachable(addresses[0]), config.server.tls_certificate is not None
    base = f"{'https' if encrypted else 'http'}://{address}"
    width = max(len(each.name) for each in config.upstreams)
    lines = [
        f"registry-mirror {__version__} serves on {', '.join(addresses)}, cache in {config.cache.dir}",
        "",
    ]
    places = [base, *(f"{base}/v2/{each.name}/" for each in config.upstreams[1:])]
    broad = max(map(len, places))
    for upstream, place in zip(config.upstreams, places, strict=True):
        lines.append(f"  {upstream.name:<{width}}  at {place:<{broad}}  from {upstream.url}")
    if config.server.offline:
        lines += ["", "Offline: none of them is asked for anything; what is not cached is not found."]
    lines += [
        "",
        "For Docker, in /etc/docker/daemon.json (then: systemctl reload docker):",
        "",
        *_for_docker(address, encrypted=encrypted),
        "",
    ]
    if config.upstreams[0].name != "docker.io":
        lines += ["Docker uses a mirror for docker.io only, and here the default is another upstream.", ""]
    guarded = [each.name for each in config.upstreams if each.logins()]
    if guarded:
        lines += [
            f"Note: what the accounts at {', '.join(guarded)} can read, everybody who reaches us can.",
            "",
        ]
    return "\n".join(lines)


def _for_docker(address: str, *, encrypted: bool) -> list[str]:
    if not encrypted:
        return [f'  "registry-mirrors": ["http://{address}"],', f'  "insecure-registries": ["{address}"]']
    return [
        f'  "registry-mirrors": ["https://{address}"]',
        "",
        "Use a name or an address that the certificate has. If it was signed by nobody clients know, the",
        f"signer's certificate goes into /etc/docker/certs.d/{address}/ca.crt on each of them.",
    ]


def _reachable(address: str) -> str:
    """An address to show: one that is bound to everything is reached here by the loopback one."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]") else address  # noqa: S104  # compared, not bound
