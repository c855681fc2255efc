"""Options and arguments that several commands share. Imports typer alone: `--help` needs nothing else."""

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

# Paths are plain strings: typer checks a Path itself, and prints a page of usage where a sentence will do.
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file. Default: $REGISTRY_MIRROR_CONFIG, or else /etc/registry-mirror/mirror.toml if it "
        'exists; "" for no file.',
        show_default=False,
    ),
]
CacheDir = Annotated[
    str | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help="Folder of the cache. Default: cache.dir of the configuration, or else "
        "/var/cache/registry-mirror as root and ~/.cache/registry-mirror as another user.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        help='Address to serve on, or ":PORT" for every address; repeatable. Default: 127.0.0.1:5000.',
    ),
]
Upstream = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream",
        metavar="NAME=URL",
        help="Registry to mirror besides the preconfigured ones, which stay, or another server for one of "
        "them; repeatable, the first is the default. Default: Docker Hub and ten others.",
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Contact no upstream: serve what the cache has.", show_default=False)
]
MirrorURL = Annotated[
    str | None,
    typer.Option(
        "--mirror",
        metavar="URL",
        help="The mirror as the client reaches it, http://HOST:PORT or https://HOST:PORT. Default: the one "
        "on this machine.",
        show_default=False,
    ),
]
CAFile = Annotated[
    str | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Certificate of a private CA that has signed the mirror's, as PEM.",
        show_default=False,
    ),
]


class Command(TyperCommand):
    """A command whose usage line shows a required argument as FILE; typer writes {FILE}."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub("[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]
