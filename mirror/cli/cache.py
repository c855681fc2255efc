"""The commands about what is cached: `ls`, `rm`, `du`, `gc`."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli.common import fail, opened, pattern
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_list, moment, size, table, tell

if TYPE_CHECKING:
    from mirror.manage.disk_usage import RepositoryUsage
    from mirror.manage.inventory import ImageSummary
    from mirror.manage.removal import RemovalStep
    from mirror.store.cache_dir import CacheDirectory

LS_HELP = """List images: tags, and what was pulled by digest.

\b
    registry-mirror ls
    registry-mirror ls alpine
    registry-mirror ls 'quay.io/org/*:v*' --json

SIZE are the bytes that are here, SHARED those of them that other images need too. PLATFORMS are those of
which the manifest is here. STATE says whether all of these can be served without the upstream.
"""

RM_HELP = """Remove images: tags, and all that nothing else needs.

\b
    registry-mirror rm alpine:3.19
    registry-mirror rm 'quay.io/org/*' --dry-run

Names are as Docker has them: alpine is docker.io/library/alpine:latest. With a star and no tag every tag
is meant, and what has none. A running mirror notices at once, and asks its upstream for what was removed.
"""

DU_HELP = """Show who uses the room: repositories, upstreams.

SIZE are the bytes of blobs that are here, OWN those that nobody else has: what removing it would free.
"""

GC_HELP = """Collect garbage, and what is over the quota.

Garbage are files without an entry, entries without a file, downloads that were interrupted and that nobody
has resumed for a day, blobs that no repository has, and what is known of images that are gone. What is
younger than an hour is left alone, so that it can be done while a mirror runs. The quota is that of the
configuration that is given.
"""

Wanted = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN", help="An image, or a pattern; no tag is every tag.", show_default=False
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Force = Annotated[bool, typer.Option("--force", help="Pinned images too; their pins stay.")]


def add_to(app: typer.Typer) -> None:
    app.command("ls", cls=Command, help=LS_HELP)(list_images)
    app.command("rm", cls=Command, help=RM_HELP)(remove_images)
    app.command("du", cls=Command, help=DU_HELP)(disk_usage)
    app.command("gc", cls=Command, help=GC_HELP)(collect_garbage)


def list_images(
    wanted: Wanted = "*", config: ConfigFile = None, cache_dir: CacheDir = None, as_json: AsJson = False
) -> None:
    from mirror.manage.inventory import Inventory

    with opened(config, cache_dir) as (folder, settings):
        images = pattern(wanted, settings, any_tag=True)
        found = Inventory(folder).images(images)
        if as_json:
            json_list(map(_as_json, found))
            return
        first = next(found, None)
        if first is None:
            tell(f"Nothing here matches {images}." if wanted != "*" else "Nothing is cached yet.")
            return
        head = ("IMAGE", "PLATFORMS", "SIZE", "SHARED", "LAST USED", "STATE")
        table(head, map(_as_row, _with(first, found)), right=("SIZE", "SHARED"))


def remove_images(
    wanted: Annotated[str, typer.Argument(metavar="PATTERN", help="An image, or a pattern of images.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    force: Force = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
) -> None:
    from mirror.manage.removal import ImageRemoval

    with opened(config, cache_dir) as (folder, settings):
        images = pattern(wanted, settings)
        if dry_run or not yes:
            _summarise("would remove", ImageRemoval(folder, images, forced=force).steps())
            if dry_run:
                return
            _confirm()
        _summarise("removed", ImageRemoval(folder, images, forced=force).carry_out())


def disk_usage(config: ConfigFile = None, cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    from mirror.manage.disk_usage import DiskUsage

    with opened(config, cache_dir) as (folder, _):
        total, room = _totals(folder), DiskUsage(folder)
        if as_json:
            typer.echo(json.dumps({**total, "shares": [_share(each) for each in room.all()]}, indent=2))
            return
        rows = map(_share_row, room.all())
        table(("NAME", "SIZE", "OWN", "SHARED", "BLOBS"), rows, right=("SIZE", "OWN", "SHARED", "BLOBS"))
        tell(
            f"{size(total['blobs'])} in {total['count']} blobs; {size(total['downloads'])} in running and "
            f"interrupted downloads; {size(total['pinned'])} pinned; {size(total['allowed'])} allowed."
        )


def collect_garbage(
    dry_run: DryRun = False, config: ConfigFile = None, cache_dir: CacheDir = None, as_json: AsJson = False
) -> None:
    from mirror.manage.garbage_collector import GarbageCollector

    with opened(config, cache_dir) as (folder, _):
        counts: Counter[str] = Counter()
        freed: Counter[str] = Counter()
        for each in GarbageCollector(folder, dry_run=dry_run).items():
            counts[each.kind] += 1
            freed[each.kind] += each.size
        if as_json:
            kinds = {kind: {"count": counts[kind], "size": freed[kind]} for kind in counts}
            typer.echo(json.dumps({"dry_run": dry_run, "removed": kinds}, indent=2))
            return
        rows = ((kind, str(counts[kind]), size(freed[kind])) for kind in counts)
        if counts:
            table(("WHAT", "COUNT", "SIZE"), rows, right=("COUNT", "SIZE"))
        done = "would be freed" if dry_run else "freed"
        tell(f"{size(freed.total())} {done}." if counts else "There is no garbage.")


def _as_json(image: "ImageSummary") -> dict[str, Any]:
    return {
        "image": image.reference,
        "upstream": image.repository.upstream,
        "repository": image.repository.path,
        "tag": image.tag or None,
        "digest": str(image.digest),
        "platforms": list(image.platforms),
        "size": image.size,
        "shared": image.shared,
        "last_used": image.last_used,
        "complete": not image.missing,
        "missing": list(image.missing),
        "pinned": image.pinned,
    }


def _as_row(image: "ImageSummary") -> tuple[str, ...]:
    state = f"{len(image.missing)} missing" if image.missing else "complete"
    return (
        image.reference,
        ", ".join(image.platforms) or "-",
        size(image.size),
        size(image.shared),
        moment(image.last_used),
        state + (", pinned" if image.pinned else ""),
    )


def _with(first: "ImageSummary", others: "Iterable[ImageSummary]") -> "Iterator[ImageSummary]":
    yield first
    yield from others


def _summarise(doing: str, steps: "Iterable[RemovalStep]") -> None:
    """Say what goes, and what does not. Ends with 1 where nothing matches, or something pinned is refused."""
    freed, images, pinned = 0, 0, 0
    for step in steps:
        for name in step.images:
            typer.echo(f"{doing} {name}")
        for name in step.pinned:
            tell(f"pinned, stays: {name}")
        freed, images, pinned = freed + step.freed, images + len(step.images), pinned + len(step.pinned)
    if not images and not pinned:
        fail("nothing here matches; what there is: registry-mirror ls", 1)
    if images:
        tell(f"{images} image{'s' if images > 1 else ''}, {size(freed)} that nothing else needs.")
    if pinned:
        advice = "unpin first (registry-mirror unpin), or --force"
        if not images:
            fail(f"nothing is removed: {advice}", 1)
        tell(f"Pinned images are not removed: {advice}.")


def _confirm() -> None:
    if not sys.stdin.isatty():
        fail("nothing was removed: add --yes to remove it", 1)
    if not typer.confirm("Remove?", err=True):
        fail("nothing was removed", 1)


def _share(share: "RepositoryUsage") -> dict[str, object]:
    kind = "upstream" if share.is_upstream else "repository"
    return {
        kind: share.name,
        "size": share.size,
        "own": share.own,
        "shared": share.shared,
        "blobs": share.blobs,
    }


def _share_row(share: "RepositoryUsage") -> tuple[str, ...]:
    name = f"{share.name}/*" if share.is_upstream else share.name
    return name, size(share.size), size(share.own), size(share.shared), str(share.blobs)


def _totals(folder: "CacheDirectory") -> dict[str, int]:
    held, count = folder.blobs.stats()
    return {
        "blobs": held,
        "count": count,
        "downloads": folder.room().used - held,
        "pinned": sum(folder.pins.pinned_sizes().values()),
        "allowed": folder.size_limit(),
    }
