"""Options and arguments that several commands share. Imports typer alone: `--help` needs nothing else."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file; config/mirror.toml has every option."),
]
CacheDir = Annotated[Path | None, typer.Option("--cache-dir", metavar="DIR", help="Folder of the cache.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen", metavar="HOST:PORT", help="Address to serve on; repeatable. Default: 127.0.0.1:5000."
    ),
]
Upstream = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream",
        metavar="NAME=URL",
        help="Registry to mirror; repeatable, the first is the default. Default: Docker Hub and six others.",
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Contact no upstream: serve what the cache has.", show_default=False)
]


class Command(TyperCommand):
    """A command whose usage line shows a required argument as FILE; typer writes {FILE}."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]
