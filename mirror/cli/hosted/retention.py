"""The commands about hosted registries: `hosted retention`, and `hosted status` of its own module."""

from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import fail, opened
from mirror.cli.hosted.status import STATUS_HELP, hosted_status
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_list, moment, table, tell

if TYPE_CHECKING:
    from mirror.hosted.retention.rules import TagVerdict
    from mirror.hosted.retention.sweep import Swept
    from mirror.oci.digest import Digest

RETENTION_HELP = """Remove the tags that no rule of `[[hosted.retention]]` keeps.

\b
    registry-mirror hosted retention --dry-run
    registry-mirror hosted retention office/app

A running mirror does the same once an hour. With --dry-run nothing is removed: the list says what would be.
Manifests that only such tags lead to go with them; `registry-mirror gc` frees the room of their blobs.
"""

app = typer.Typer(
    help="Look after hosted registries.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(program: typer.Typer) -> None:
    """Add the group of commands."""
    program.add_typer(app, name="hosted")


@app.callback()
def hosted() -> None:
    """Look after hosted registries."""


app.command("status", cls=Command, help=STATUS_HELP)(hosted_status)


@app.command("retention", cls=Command, help=RETENTION_HELP)
def hosted_retention(
    repository: Annotated[
        str | None,
        typer.Argument(help="One repository, as office/app. Default: all.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing: tell what would be removed.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="List the tags that stay, too, and why.")] = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    from mirror.hosted.replication.target import queue_deletions
    from mirror.hosted.retention.sweep import RetentionSweep
    from mirror.oci.reference import Tag

    found: list[Swept] = []
    with opened(config, cache_dir) as (management, settings):
        ruled = [each for each in settings.hosted if each.retention]
        if not ruled:
            fail("no [[hosted]] of the configuration has a retention: nothing is removed", 1)
        for each in ruled:
            sweep = RetentionSweep(management.folder, each)
            for name in sweep.repositories():
                if repository in (None, str(name)):
                    found.append(swept := sweep.sweep(name, dry_run=dry_run))
                    if not dry_run:
                        gone: list[Tag | Digest] = [*(Tag(tag) for tag, _ in swept.tags), *swept.manifests]
                        queue_deletions(management.folder, [each], name, gone)
    if repository is not None and not found:
        fail(f"{repository} is no repository of a hosted registry with a retention", 1)
    rows = [row for swept in found for row in _rows(swept, everything=everything)]
    if as_json:
        json_list(rows)
    elif rows:
        head = ("REPOSITORY", "TAG", "ACTION", "PUSHED", "PULLED", "DIGEST", "REASON")
        table(head, map(_texts, rows), optional=("DIGEST",))
    _summary(found, dry_run=dry_run)


def _rows(swept: "Swept", *, everything: bool) -> list[dict[str, object]]:
    going, verdicts = dict(swept.tags), {each.tag.name: each for each in swept.verdicts}
    return [
        _row(swept, verdicts[name], removed=name in going)
        for name in sorted(verdicts)
        if everything or name in going
    ]


def _row(swept: "Swept", verdict: "TagVerdict", *, removed: bool) -> dict[str, object]:
    tag, reason = verdict.tag, verdict.reason
    if removed and verdict.stays:
        reason = "the manifest that it belongs to goes"
    return {
        "repository": str(swept.repository),
        "tag": tag.name,
        "action": "remove" if removed else "keep",
        "pushed": tag.pushed,
        "pulled": tag.pulled or None,
        "digest": tag.digest,
        "reason": reason,
    }


def _texts(row: "dict[str, object]") -> tuple[str, ...]:
    times = {key: value if isinstance(value, float) else None for key, value in row.items()}
    shown = {**row, "pushed": moment(times["pushed"]), "pulled": moment(times["pulled"])}
    keys = ("repository", "tag", "action", "pushed", "pulled", "digest", "reason")
    return tuple(str(shown[key]) for key in keys)


def _summary(found: "list[Swept]", *, dry_run: bool) -> None:
    tags, manifests = sum(len(each.tags) for each in found), sum(len(each.manifests) for each in found)
    judged = sum(len(each.verdicts) for each in found)
    verb = "would be removed" if dry_run else "were removed"
    tell(f"{tags} of {judged} tags, and {manifests} manifests, {verb}.")
