"""The `setup` command: what to write so that a client uses the mirror, and the writing of it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import fail, loaded
from mirror.cli.options import CAFile, Command, ConfigFile, MirrorURL
from mirror.cli.output import say, tell
from mirror.system.addresses import reachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirror.setup.changes import Changes
    from mirror.setup.clients import Client as SetupClient
    from mirror.setup.plan import File, Mirror, Request, Root, SetupPlan

# The clients, as the help shows them: mirror.setup.clients is imported by the command alone.
NAMES = (
    *("docker", "containerd", "podman", "k3s", "rke2", "buildkit", "kaniko", "kind", "minikube", "nerdctl"),
    *("docker-machine", "crio"),
)

HELP = f"""Show how a client is pointed at the mirror, or do it.

CLIENT is one of {", ".join(NAMES)}. Without --write nothing is changed: the command prints a diff
of each file, and what makes the client read it.

\b
    registry-mirror setup docker
    registry-mirror setup docker --mirror http://mirror.lan:5000 --write
    registry-mirror setup docker --undo

Existing settings stay: other mirrors are asked after this one. With --write each file is checked first, by
the client itself where it can check. A second run changes nothing.

Exit status: 0 if it was done or shown, 1 if it could not be done, 2 for wrong usage.
"""

# Folder of the records of a user who is not root, below the user's own.
USER_RECORDS = ".local/state/registry-mirror/setup"


Client = Annotated[str, typer.Argument(metavar="CLIENT", show_default=False)]
Write = Annotated[bool, typer.Option("--write", help="Write the files.")]
Undo = Annotated[bool, typer.Option("--undo", help="Restore the files as they were before.")]
Force = Annotated[
    bool, typer.Option("--force", help="With --undo: restore files that have changed since, too.")
]
SystemRoot = Annotated[
    str, typer.Option("--root", metavar="DIR", help="Root of the system to set up, for instance of an image.")
]
MainFile = Annotated[
    str | None,
    typer.Option(
        "--file",
        metavar="PATH",
        help="The client's main file, if it is not at its usual place below the root.",
        show_default=False,
    ),
]
ClientVersion = Annotated[
    str | None,
    typer.Option(
        "--client-version",
        metavar="VERSION",
        help="Version of the client. Default: what its program on this machine says.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command, help=HELP)(setup)


def setup(
    client: Client,
    mirror: MirrorURL = None,
    ca: CAFile = None,
    write: Write = False,
    undo: Undo = False,
    force: Force = False,
    root: SystemRoot = "/",
    file: MainFile = None,
    client_version: ClientVersion = None,
    config: ConfigFile = None,
) -> None:
    if client not in NAMES:
        fail(f"{client!r} is no client that can be set up: choose one of {', '.join(NAMES)}", 2)
    if write and undo:
        fail("--write and --undo exclude each other", 2)
    if not Path(root).is_dir():
        fail(f"--root {root}: there is no such folder", 2)
    from mirror.setup.changes import RECORDS, Changes
    from mirror.setup.plan import Root, SetupError

    system = Root(Path(root))
    own_user = os.geteuid() != 0 and root == "/"
    try:
        changes = Changes(system, client, str(Path.home() / USER_RECORDS) if own_user else RECORDS)
        if undo:
            for path in changes.undo(force=force):
                say(f"restored: {system.place(path)}")
            return
        request = _request(system, client, _mirror(mirror, ca, config), file, client_version)
        _do(client, request, changes, write=write)
    except SetupError as error:
        fail(str(error), 1)


def _request(
    system: "Root", client: str, mirror: "Mirror", file: str | None, version: str | None
) -> "Request":
    from mirror.setup.clients import CLIENTS, installed_version
    from mirror.setup.plan import Request, SetupError, Version

    given = None if version is None else Version.parse(version)
    if version is not None and given is None:
        raise SetupError(f"--client-version {version!r} is not a version, for instance 1.7.24")
    if file is not None:
        file = str(Path(file).expanduser().absolute())
    return Request(system, mirror, given or installed_version(CLIENTS[client]), file, str(Path.home()))


def _mirror(url: str | None, ca: str | None, config: str | None) -> "Mirror":
    from mirror.setup.running_mirror import find_mirror

    return find_mirror(*place_of_mirror(url, ca, config))


def place_of_mirror(url: str | None, ca: str | None, config: str | None) -> tuple[str, str | None]:
    """Return URL and CA of the mirror that is named, or of this machine's. Raises SetupError."""
    from mirror.setup.certificates import read_ca, root_of

    text = None if ca is None else read_ca(Path(ca))
    if url is None:
        server = loaded(config, {}).config.server
        scheme = "http" if server.tls_certificate is None else "https"
        url = f"{scheme}://{reachable(server.listen[0])}"
        if text is None and server.tls_certificate is not None:
            text = root_of(server.tls_certificate)
    return url, text


def _do(name: str, request: "Request", changes: "Changes", *, write: bool) -> None:
    from mirror.setup.clients import CLIENTS
    from mirror.setup.plan import changed

    client = CLIENTS[name]
    plan = client.plan(request)
    files = changed(request.root, plan.files)
    version = f" {request.version}" if request.version is not None else ""
    tell(f"{name}{version} and the mirror at {request.mirror.url}")
    for line in changes.diff(files):
        say(line)
    if plan.files and not files:
        tell("Every file is as it should be: nothing to write.")
    for each in plan.arguments:
        say(each)
    if write and files:
        _check(client, files, request)
        changes.write(files)
        for file in files:
            tell(f"written: {request.root.place(file.path)}")
    _explain(name, plan, files, write=write)
    if write and not plan.files:
        fail(f"nothing is written: {name} has no file for it; do what stands above", 1)


def _check(client: "SetupClient", files: "Sequence[File]", request: "Request") -> None:
    """End the command if the client could not read one of the files."""
    from mirror.setup.clients import check

    for file in files:
        if complaint := check(client, file, request.version):
            fail(f"{file.path} is not written, because its client refuses it:\n{complaint}", 1)


def _explain(name: str, plan: "SetupPlan", files: "Sequence[File]", *, write: bool) -> None:
    """Say on standard error what is left to do; the notes too."""
    lines = [f"Note: {note}" for note in plan.notes]
    if files and not write:
        again = " ".join(each for each in sys.argv[1:] if each != "--write")
        lines.append(f"Nothing is written yet: registry-mirror {again or f'setup {name}'} --write")
    if plan.commands and (files or not plan.files):
        lines += ["Then:", *(f"  {each}" for each in plan.commands)]
    for each in lines:
        tell(each)
