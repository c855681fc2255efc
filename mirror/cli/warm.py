"""The command `warm`: fetch images ahead."""

import shlex
import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import become_owner, fail, image_name, loaded, require_access, start_collector
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_line, json_list, moment, say, table, tell
from mirror.cli.remote.connection import Server, TokenFile, asking

if TYPE_CHECKING:
    from mirror.cache.pull.budget import Pause
    from mirror.cli.progress import ProgressView
    from mirror.config.schema import Config
    from mirror.manage.warm.images import WarmImage
    from mirror.manage.warm.listed import Listed
    from mirror.manage.warm.plan import WarmPlan
    from mirror.manage.warm.run import WarmRun
    from mirror.service.service import Service

HELP = """Fetch images ahead, so that clients find them here, without the upstream too.

\b
    registry-mirror warm alpine:3.20 quay.io/org/app:v1
    registry-mirror warm 'alpine:3.*' 'nginx:>=1.25 <2' --platform linux/amd64 --platform linux/arm64
    registry-mirror warm --from images.txt --from compose.yaml --from deploy.yaml --from ./chart
    helm template CHART --values FILE | registry-mirror warm --from -

Names are as Docker has them. The tag may be a pattern, or a range of versions: >= <= > < =, ^1.2, ~1.2.3.
FILE is a plain list (one image a line, # comments), a Compose file, Kubernetes manifests, a Helm chart
(helm must be installed), or - for standard input. What of a file is not taken is named with its line.
Variables of a Compose file have the values of --env-file FILE and --env NAME, and none else: a list that
another person wrote reads nothing of this environment.

A mirror may run meanwhile: it serves what has come, and its clients go first. What is here is not fetched
again, so a run that was interrupted in any way goes on where it was when it is repeated. Where the upstream
limits pulls, the last ones are left to others (--leave), and the run waits until there are more.

The exit status is 1 if anything is missing, and says what.
"""

# Default of --leave, which is that of `mirror.manage.warm.plan` too.
LEAVE = 50

Images = Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Images.", show_default=False)]
Files = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="FILE", help="A list of images; repeatable.", show_default=False),
]
EnvFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--env-file",
        metavar="FILE",
        help="Values of variables in Compose files; repeatable.",
        show_default=False,
    ),
]
EnvNames = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME[=VALUE]",
        help="Value of one variable, from the environment if it is not given here; repeatable.",
        show_default=False,
    ),
]
Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="Platform of images that have several, or all; repeatable. Default: this machine's own.",
        show_default=False,
    ),
]
Referrers = Annotated[
    bool, typer.Option("--referrers", help="Fetch signatures, attestations and SBOMs, too.")
]
PinThem = Annotated[bool, typer.Option("--pin", help="Pin the images: they are never evicted.")]
Leave = Annotated[
    int, typer.Option("--leave", metavar="N", min=0, help="Pulls to leave where the upstream limits them.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list the images.")]
Status = Annotated[bool, typer.Option("--status", help="Show the lists of the configuration and their runs.")]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command, help=HELP)(warm)


def warm(
    images: Images = None,
    files: Files = None,
    env_file: EnvFiles = None,
    env: EnvNames = None,
    platform: Platforms = None,
    referrers: Referrers = False,
    pin: PinThem = False,
    leave: Leave = LEAVE,
    dry_run: DryRun = False,
    status: Status = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    if server is not None:
        from mirror.cli.remote import keeping

        with asking(server, token_file, config) as remote:
            if status:
                keeping.warm_status(remote, as_json=as_json)
            elif files or pin or dry_run or as_json or not images:
                fail("with --server, give images, and none of --from, --pin, --dry-run, --json", 2)
            else:
                keeping.warm(remote, images, platform or [])
        return
    from mirror.manage.warm.plan import WarmPlan

    settings = loaded(config, {"cache_dir": cache_dir}).config
    if status:
        _show_status(settings, as_json=as_json)
        return
    values = _values(env_file or [], env or [])
    listed = _read_lists(images or [], files or [], values, as_json=as_json)
    chosen = _parse_images(listed, settings, as_json=as_json)
    if not chosen:
        fail("no image is named: registry-mirror warm IMAGE, or --from FILE", 1 if listed.notes else 2)
    try:
        plan = WarmPlan.of(chosen, platform or [], referrers=referrers, pin=pin, leave=leave)
    except ValueError as error:
        fail(str(error), 2)
    run = _carry_out(settings, plan, dry_run=dry_run, as_json=as_json)
    if run.failed and not as_json:
        tell(f"{len(run.failed)} of {len(run.results)} images are not complete.")
    if run.failed or any(each.wrong for each in listed.notes):
        raise SystemExit(1)


def _show_status(settings: "Config", *, as_json: bool) -> None:
    """Show each list of the configuration with its last and its next run; the mirror need not run."""
    from mirror.manage.warm.job_state import read_states
    from mirror.manage.warm.scheduler import status_of

    become_owner(settings.cache.dir, 1)
    folder = settings.cache.dir
    states, now = read_states(folder), time.time()
    lists = [status_of(each, states, now, str(folder)) for each in settings.warm]
    if as_json:
        json_list(lists)
        return
    if not lists:
        tell("The configuration has no [[warm]] tables: docs/offline.md has an example.")
        return
    rows = (
        (
            each["name"],
            each["schedule"],
            moment(each["last_ended"]),
            f"{each['result']}, {each['failed']} of {each['images']} failed"
            if each["failed"]
            else each["result"],
            _local(each["next"]),
        )
        for each in lists
    )
    table(("NAME", "SCHEDULE", "LAST RUN", "RESULT", "NEXT RUN"), rows)
    for each in lists:
        for name, reason in each["failures"].items():
            tell(f"{each['name']}: {name}: {reason}")


def _local(moment: float) -> str:
    """Return a moment with the offset of this machine's time zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment))


def fetch_pinned(reference: str, platforms: list[str], settings: "Config") -> None:
    """Fetch what a pin keeps; the command ends with 1 if anything is missing."""
    from mirror.manage.warm.images import parse_image
    from mirror.manage.warm.plan import WarmPlan

    try:
        image = parse_image(image_name(reference, settings), settings.names().mirrored)
    except ValueError as error:
        fail(f"{error}; the pin stays, and nothing is fetched", 1)
    plan = WarmPlan.of([image], platforms or ["all"], referrers=True, pin=False, leave=LEAVE)
    if _carry_out(settings, plan, dry_run=False, as_json=False).failed:
        raise SystemExit(1)


def fetch_images(
    references: list[str], platforms: list[str], settings: "Config", *, referrers: bool, as_json: bool
) -> None:
    """Fetch images for another command, which finds out itself what is missing."""
    from mirror.manage.warm.images import parse_image
    from mirror.manage.warm.plan import WarmPlan

    try:
        names = settings.names().mirrored
        images = [parse_image(image_name(each, settings), names) for each in references]
        plan = WarmPlan.of(images, platforms, referrers=referrers, pin=False, leave=LEAVE)
    except ValueError as error:
        fail(str(error), 2)
    _carry_out(settings, plan, dry_run=False, as_json=as_json)


def _values(files: list[str], named: list[str]) -> dict[str, str]:
    """Return the values of variables in Compose files; the command ends with 2 for one that has none.

    Those of `named` win over those of files, and later ones over earlier ones.
    """
    from mirror.config.loader import environment
    from mirror.manage.warm.listed import ListError
    from mirror.manage.warm.source import read_values

    found: dict[str, str] = {}
    try:
        for file in files:
            found |= read_values(file)
    except ListError as error:
        fail(f"--env-file: {error}", 2)
    for each in named:
        name, given, value = each.partition("=")
        if not given and name not in environment():
            fail(f"--env {name}: the environment has no such variable; give a value: --env {name}=VALUE", 2)
        found[name] = value if given else environment()[name]
    return found


def _read_lists(images: list[str], files: list[str], values: dict[str, str], *, as_json: bool) -> "Listed":
    """Return the entries of all lists; the command ends with 2 if one cannot be read at all."""
    from mirror.manage.warm.listed import Listed, ListEntry, ListError
    from mirror.manage.warm.source import read_source

    found = Listed([ListEntry(each, "") for each in images])
    for file in files:
        try:
            found.add(read_source(file, values))
        except ListError as error:
            fail(str(error), 2)
    for note in found.notes:
        _show_note(note.place, note.reason, wrong=note.wrong, as_json=as_json)
    return found


def _show_note(place: str, reason: str, *, wrong: bool, as_json: bool) -> None:
    if as_json:
        json_line({"event": "note", "place": place, "reason": reason, "wrong": wrong})
    else:
        tell(f"{place}: {reason}" if wrong else f"Note: {place}: {reason}")


def _parse_images(listed: "Listed", settings: "Config", *, as_json: bool) -> "list[WarmImage]":
    """Return the images of the entries; note those that are none. One of the arguments ends with 2."""
    from mirror.manage.warm.images import parse_image
    from mirror.manage.warm.listed import Note

    found, names = [], settings.names().mirrored
    for entry in listed.entries:
        try:
            found.append(parse_image(image_name(entry.text, settings), names))
        except ValueError as error:
            if not entry.place:
                fail(str(error), 2)
            listed.notes.append(Note(entry.place, str(error)))
            _show_note(entry.place, str(error), wrong=True, as_json=as_json)
    return found


def _carry_out(settings: "Config", plan: "WarmPlan", *, dry_run: bool, as_json: bool) -> "WarmRun":
    """Open the cache folder beside a running mirror, or a stopped one, and fetch. StoreError ends with 1."""
    from mirror.cli.progress import run_interruptible
    from mirror.manage.warm.run import WarmRun  # noqa: F401  # before the owner may not read it
    from mirror.service.service import Service
    from mirror.store.errors import PinTooLarge, StoreError
    from mirror.util.log import configure_later

    start_collector()
    configure_later(settings.log, sys.stderr)
    become_owner(settings.cache.dir, 1)
    require_access(settings.cache.dir, 1)

    async def operation() -> "WarmRun":
        service = await Service.open_beside(settings)
        try:
            return await _fetch(service, plan, dry_run=dry_run, as_json=as_json)
        finally:
            await service.close()

    again = f"Repeat the command to go on: {shlex.join(['registry-mirror', *sys.argv[1:]])}"
    try:
        return run_interruptible(operation(), again)
    except PinTooLarge as error:
        fail(f"the images are not pinned: {error}. Raise cache.max_size, or unpin something", 1)
    except StoreError as error:
        fail(str(error), 1)


async def _fetch(service: "Service", plan: "WarmPlan", *, dry_run: bool, as_json: bool) -> "WarmRun":
    from mirror.cli.progress import shown
    from mirror.util.progress.amounts import ImageProgress

    views: list[ProgressView] = []
    run = service.warm.run(plan, lambda pause: _show_pause(pause, views, as_json=as_json))
    resolved = [each async for each in run.resolve(plan.images)]
    found = [each for each in resolved if not isinstance(each, ImageProgress)]
    if not dry_run:
        await service.warm.pin(plan.pins(found))
    with shown(len(resolved), as_json=as_json) as view:
        views.append(view)
        for each in resolved:
            if isinstance(each, ImageProgress):
                view.update(each)
            elif dry_run:
                _show_planned(each, plan, as_json=as_json)
        if not dry_run:
            async with aclosing(run.steps(found)) as steps:
                async for step in steps:
                    view.update(step)
            view.done(missing={name: dict(parts) for name, parts in run.missing.items() if parts})
    return run


def _show_planned(image: "WarmImage", plan: "WarmPlan", *, as_json: bool) -> None:
    if as_json:
        json_line({"event": "planned", "image": str(image), "platforms": list(plan.platforms)})
    else:
        say(f"{image} ({', '.join(plan.platforms) or 'all platforms'})")


def _show_pause(pause: "Pause", views: "list[ProgressView]", *, as_json: bool) -> None:
    """Say that the run waits for an upstream, and until when."""
    until = time.time() + pause.seconds
    if as_json:
        named = {"upstream": pause.upstream, "reason": pause.reason, "until": round(until)}
        json_line({"event": "pause", **named})
        return
    moment = time.strftime("%H:%M:%S", time.localtime(until))
    message = f"{pause.upstream}: {pause.reason}. Waiting: the run goes on, or asks again, at {moment}."
    (views[-1].tell if views else tell)(message)
