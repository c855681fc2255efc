"""The `healthcheck` command: the exit status that container runtimes ask for."""

from typing import Annotated

import typer

from mirror.cli.common import fail, loaded
from mirror.cli.options import Command, ConfigFile
from mirror.cli.output import say

HELP = """Say whether the mirror on this machine is alive: exit status 0, else 1.

For HEALTHCHECK of a container and for scripts, where no curl is installed. The address is that of the
configuration; the operators' listener, where there is one.

\b
    registry-mirror healthcheck
    registry-mirror healthcheck --ready
    registry-mirror healthcheck --url http://127.0.0.1:5000/healthz
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command, help=HELP)(healthcheck)


def healthcheck(
    ready: Annotated[
        bool,
        typer.Option(
            "--ready",
            help="Ask /readyz, which says no while the mirror drains. Default: /healthz.",
            show_default=False,
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="Probe to ask, whatever the configuration.", show_default=False
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Longest wait for each step.", min=0.1)
    ] = 5.0,
    config: ConfigFile = None,
) -> None:
    from pathlib import Path

    from mirror.doctor.health_check import Unhealthy, check, probe_url

    certificate = None
    if url is None:
        server = loaded(config, {}).config.server
        url = probe_url(server, "/readyz" if ready else "/healthz")
        if url.startswith("https:") and server.tls_certificate is not None:
            certificate = Path(server.tls_certificate)
    try:
        answer = check(url, seconds, certificate)
    except Unhealthy as error:
        fail(str(error), 1)
    say("ready" if ready else answer)
