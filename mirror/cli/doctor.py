"""The `doctor` command: what is wrong, why it matters, and the line that mends it."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import fail, loaded
from mirror.cli.notes import config_notes
from mirror.cli.options import AsJson, CacheDir, CAFile, Command, ConfigFile, MirrorURL
from mirror.cli.output import json_document, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mirror.config.schema import Config
    from mirror.doctor.finding import Diagnosis

HELP = """Find what keeps the mirror from working, and what mends it.

On the mirror's machine: the running mirror and its port, the disk of the cache, limits; then for each
upstream name, route, proxy, TLS, clock, token, account, rate limit, and the host that has its blobs.

\b
    registry-mirror doctor
    registry-mirror doctor --image quay.io/org/app:1

An upstream that has no image of --image is asked for a small public one. Docker Hub counts that as one pull.

On a client's machine, for docker, containerd, podman or k3s: whether the mirror is reached, whether this
version of the client reads its configuration, whether its pulls arrive at the mirror (an image that only the
mirror has is pulled, and removed), whether the mirror would be sent a password, and where a miss goes.

    registry-mirror doctor --client docker --mirror http://mirror.lan:5000

Exit status: 0 if all is fine, 1 for warnings, 2 for errors.
"""

SIGNS = {"fine": "ok     ", "warning": "WARNING", "error": "ERROR  "}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command, help=HELP)(doctor)


def doctor(
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="IMAGE",
            help="Image that must be found, for instance quay.io/org/app:1; repeatable.",
            show_default=False,
        ),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(
            "--client",
            metavar="CLIENT",
            help="Examine a client of this machine: docker, containerd, podman or k3s.",
            show_default=False,
        ),
    ] = None,
    mirror: MirrorURL = None,
    ca: CAFile = None,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    import asyncio

    from msgspec import to_builtins

    from mirror.doctor.finding import merged, status

    if client is not None:
        findings = _examine_client(client, mirror, ca, config)
        if not as_json:
            _print(findings)
    else:
        settings = loaded(config, {"cache_dir": cache_dir}).config
        _log_errors_only(settings)
        images = _images(image or [], settings)
        findings = merged(asyncio.run(_examine(settings, images, quiet=as_json)))
    if as_json:
        json_document([to_builtins(each) for each in findings])
    raise typer.Exit(status(findings))


def _examine_client(client: str, mirror: str | None, ca: str | None, config: str | None) -> "list[Diagnosis]":
    from mirror.cli.setup import place_of_mirror
    from mirror.doctor.client import NAMES, examine_client
    from mirror.setup.plan import SetupError

    if client not in NAMES:
        fail(f"{client!r} is no client that can be examined: choose one of {', '.join(NAMES)}", 2)
    try:
        return examine_client(client, *place_of_mirror(mirror, ca, config))
    except SetupError as error:
        fail(str(error), 2)


def _log_errors_only(config: "Config") -> None:
    """Keep the mirror's own lines, which the findings repeat, out of standard output."""
    from msgspec.structs import replace

    from mirror.util.log import configure_later

    log = config.log if config.log.level == "debug" else replace(config.log, level="error")
    configure_later(log, sys.stderr)


async def _examine(config: "Config", images: "Mapping[str, str]", *, quiet: bool) -> "list[Diagnosis]":
    """Return all findings; unless `quiet`, print the local ones at once, the others when all are there."""
    import asyncio

    from mirror.doctor.examination import examine_machine, examine_upstreams
    from mirror.doctor.finding import merged, warning

    notes = [
        warning("configuration", note, "it may not be what was meant", "") for note in config_notes(config)
    ]
    local = [*notes, *await asyncio.to_thread(examine_machine, config, _ca(config))]
    if not quiet:
        _print(local)
    remote: list[Diagnosis] = []
    async for each in examine_upstreams(config, images):
        remote += each
    if not quiet:
        _print(merged(remote))
    return [*local, *remote]


def _ca(config: "Config") -> str | None:
    from mirror.setup.certificates import root_of
    from mirror.setup.plan import SetupError

    try:
        certificate = config.server.tls_certificate
        return None if certificate is None else root_of(certificate)
    except SetupError:
        return None


def _images(given: list[str], config: "Config") -> dict[str, str]:
    """Return REPOSITORY:TAG by upstream; the command ends with 2 for an image that no upstream can have."""
    from mirror.cli.common import pattern

    found = {}
    for each in given:
        images = pattern(each, config)
        upstream, _, repository = images.name.partition("/")
        if (
            upstream not in config.names().names
            or "*" in images.name + images.tag
            or images.digest is not None
        ):
            fail(f"--image {each!r} is not UPSTREAM/REPOSITORY:TAG of a configured upstream", 2)
        found[config.names().names[upstream]] = f"{repository}:{images.tag}"
    return found


def _print(findings: "list[Diagnosis]") -> None:
    for each in findings:
        say(f"{SIGNS[each.severity]} {each.subject}: {each.what}")
        if each.why:
            say(f"        why:  {each.why}")
        if each.mend:
            say(f"        mend: {each.mend}")
