"""The commands about cached images and their room: `ls`, `rm`, `du`, `gc`."""

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import asdict

from mirror.cli.common import fail, opened, pattern
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import day, json_document, json_list, moment, say, table, tell
from mirror.cli.remote.connection import Server, TokenFile, asking
from mirror.util.units import size

if TYPE_CHECKING:
    from mirror.cli.remote.connection import Remote
    from mirror.config.schema import Config
    from mirror.manage.disk_usage import RepositoryUsage
    from mirror.manage.inventory import ImageSummary
    from mirror.manage.management import Management
    from mirror.manage.removal import RemovalStep

LS_HELP = """List images: tags, and what was pulled by digest.

\b
    registry-mirror ls
    registry-mirror ls alpine
    registry-mirror ls quay.io
    registry-mirror ls 'quay.io/org/*:v*' --json

PLATFORMS are the platforms that are cached, and SIZE is their size. SHARED is the part of SIZE that other
images need too. Without a tag, PATTERN means every tag. An image is complete if these platforms, and all
pinned ones, can be served without the upstream. A narrow terminal shows fewer columns. Output to a pipe is
separated by tabs.
"""

RM_HELP = """Remove images, and the blobs that only they need.

\b
    registry-mirror rm alpine:3.19
    registry-mirror rm 'quay.io/org/*' --dry-run
    registry-mirror rm quay.io --yes --json

Names are as Docker has them: alpine is docker.io/library/alpine:latest, although `ls alpine` lists every tag.
A pattern with a star and without a tag, or the name of a registry, means every tag and every image without
one. A running mirror notices at once, and downloads removed images again if a client asks for them. Images
of a hosted registry were pushed here, and are gone.
"""

DU_HELP = """Show how much room each repository and each upstream takes.

\b
    registry-mirror du
    registry-mirror du 'quay.io/*'

SIZE counts the blobs that are here, OWN those of them that no other repository has: their room is free after
`registry-mirror rm`. Where a rule of cache.rules limits the share of a repository, the last column has what
counts against it: of a blob that several repositories have, a part for each.
"""

GC_HELP = """Remove garbage, and whatever exceeds the quota.

\b
    registry-mirror gc --dry-run
    registry-mirror gc

Garbage is whatever no client can ask for: files that the index does not know, index entries without a file,
blobs of no repository, tags and links of images that are gone, and downloads that were interrupted more than
a day ago. Then repositories beyond their share (cache.rules) give up blobs of their own. If the cache exceeds
cache.max_size or cache.min_free after that, interrupted downloads go first, then the blobs that have not been
used for longest. Pinned blobs stay.

It may run beside a running mirror: nothing younger than an hour counts as garbage.
"""

ImageOrPattern = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN",
        help="An image, a pattern, or a registry. Without a tag: every tag. Default: every image.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be removed.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)]
Force = Annotated[
    bool, typer.Option("--force", help="Remove pinned images too; their pins stay.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("ls", cls=Command, help=LS_HELP)(list_images)
    app.command("rm", cls=Command, help=RM_HELP)(remove_images)
    app.command("du", cls=Command, help=DU_HELP)(disk_usage)
    app.command("gc", cls=Command, help=GC_HELP)(collect_garbage)


def list_images(
    images: ImageOrPattern = "*",
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    if server is not None:
        from mirror.cli.remote import images as remote_images

        with asking(server, token_file, config) as remote:
            remote_images.list_images(remote, images, as_json=as_json)
        return
    with opened(config, cache_dir) as (management, settings):
        wanted = pattern(images, settings, any_tag=True)
        found = iter(management.images.matching(wanted))
        if as_json:
            json_list(map(_image_json, found))
            return
        first = next(found, None)
        if first is None:
            tell(f"No image here matches {wanted}." if images != "*" else "No image is cached yet.")
            return
        table(
            ("IMAGE", "PLATFORMS", "SIZE", "SHARED", "LAST USED", "STATE"),
            map(_image_row, chain([first], found)),
            right=("SIZE", "SHARED"),
            optional=("SHARED", "PLATFORMS", "LAST USED"),
        )


def remove_images(
    images: Annotated[
        str, typer.Argument(metavar="PATTERN", help="An image, a pattern of images, or a registry.")
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
    force: Force = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    if as_json and not dry_run and not yes:
        fail("nothing was removed: --json does not ask, so add --yes or --dry-run", 2)
    if server is not None:
        with asking(server, token_file, config) as remote:
            _remove_there(remote, images, Choice(yes=yes, dry_run=dry_run, force=force, as_json=as_json))
        return
    with opened(config, cache_dir) as (management, settings):
        wanted = pattern(images, settings)

        def removal(*, dry_run: bool) -> Iterator["RemovalStep"]:
            for step in management.images.remove(wanted, forced=force, dry_run=dry_run):
                if step.hosted and not dry_run:
                    _queue_deletions(management, settings, step)
                yield step

        if as_json:
            _print_removal(removal(dry_run=dry_run), dry_run=dry_run)
            return
        if dry_run or not yes:
            _summarise("would remove", removal(dry_run=True))
            if dry_run:
                return
            _confirm()
        _summarise("removed", removal(dry_run=False))


def disk_usage(
    images: ImageOrPattern = "*",
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    if server is not None:
        from mirror.cli.remote import room

        with asking(server, token_file, config) as remote:
            room.disk_usage(remote, images, as_json=as_json)
        return
    with opened(config, cache_dir) as (management, settings):
        everything = images == "*"
        found = management.disk.usage(None if everything else pattern(images, settings, any_tag=True))
        total = management.disk.totals().now()
        if as_json:
            numbers = {key: value for key, value in asdict(total).items() if key != "scrub"}
            json_document({**numbers, "shares": [_usage_json(each) for each in found]})
            return
        usages = list(found)
        ruled = any(each.max_share is not None for each in usages)
        rows = [_usage_row(each, ruled=ruled) for each in usages]
        if not rows and not everything:
            tell(f"No repository here matches {images}.")
            return
        columns = ("SIZE", "OWN", "SHARED", "BLOBS", *(["OF ITS SHARE"] if ruled else []))
        table(("NAME", *columns), rows, right=columns, optional=("SHARED", "BLOBS"))
        pushed = f", {size(total.retained)} of them pushed here" if total.retained else ""
        count = f"{total.count} blob{'' if total.count == 1 else 's'}"
        uploads = f"{size(total.upload_bytes)} in unfinished pushes; " if total.uploads else ""
        tell(
            f"{size(total.blobs)} in {count}{pushed}; {size(total.downloads)} in running and "
            f"interrupted downloads; {uploads}{size(total.pinned)} pinned; {size(total.allowed)} allowed. "
            f"The index takes {size(total.index)} of {size(total.index_allowed)} beside that."
        )
        if (scrub := total.scrub) is not None:
            ended = time.strftime("%Y-%m-%d", time.localtime(scrub.ended))
            done = f"ended on {ended}" if scrub.ended else f"{scrub.share:.0%} of this pass"
            tell(f"Scrub: {done}; {scrub.wrong} wrong.")
        if shortage := management.disk.shortage().now():
            tell(f"Note: {shortage}")


def collect_garbage(
    dry_run: DryRun = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    if server is not None:
        from mirror.cli.remote import room

        with asking(server, token_file, config) as remote:
            room.collect_garbage(remote, dry_run=dry_run, as_json=as_json)
        return
    from mirror.manage.garbage_collector import count_by_kind

    with opened(config, cache_dir) as (management, _):
        counts, freed = count_by_kind(management.upkeep.collect_garbage(dry_run=dry_run))
        foreign = [str(path) for path in management.upkeep.foreign_files().now()]
        if as_json:
            kinds = {kind: {"count": counts[kind], "size": freed[kind]} for kind in counts}
            json_document({"dry_run": dry_run, "removed": kinds, "foreign": foreign})
            return
        if counts:
            rows = [(kind, str(counts[kind]), size(freed[kind])) for kind in counts]
            table(("WHAT", "COUNT", "SIZE"), rows, right=("COUNT", "SIZE"))
        done = "would be freed" if dry_run else "freed"
        tell(f"{size(freed.total())} {done}." if counts else "There is no garbage.")
        for path in foreign:
            tell(f"Not part of the cache, and not touched: {path}")
        if not dry_run and (excess := management.disk.excess().now()) > 0:
            tell(_still_over(management, excess))


def _still_over(management: "Management", excess: int) -> str:
    """Return why the cache exceeds the quota after a collection."""
    if shortage := management.disk.shortage().now():
        return f"Note: {shortage}"
    return f"Still {size(excess)} over the quota: pinned, being read, or being downloaded."


def _image_json(image: "ImageSummary") -> dict[str, Any]:
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
        "complete": image.complete,
        "missing": list(image.missing),
        "missing_platforms": list(image.missing_platforms),
        "pinned": image.pinned,
        "provenance": None if image.provenance is None else asdict(image.provenance),
        "gone_since": image.gone_since,
    }


def _image_row(image: "ImageSummary") -> tuple[str, ...]:
    return (
        image.reference,
        ", ".join(image.platforms) or "-",
        size(image.size),
        size(image.shared),
        moment(image.last_used),
        ", ".join(_states(image)),
    )


def _states(image: "ImageSummary") -> Iterable[str]:
    if image.missing:
        yield f"{len(image.missing)} missing"
    if len(image.missing_platforms) > 2:
        yield f"{len(image.missing_platforms)} platforms missing"
    elif image.missing_platforms:
        yield f"{' and '.join(image.missing_platforms)} missing"
    if image.complete:
        yield "complete"
    if image.pinned:
        yield "pinned"
    if image.provenance is not None:
        yield f"{image.provenance.kind} {day(image.provenance.date)}"
    if image.gone_since is not None:
        yield f"gone upstream since {day(image.gone_since)}"


def _summarise(action: str, steps: "Iterable[RemovalStep]") -> None:
    """Print what is removed and what is not. End with 1 if nothing matches, or only pinned images do."""
    freed, images, pinned = 0, 0, 0
    for step in steps:
        for name in step.images:
            say(f"{action} {name}{', which was pushed here: no upstream has it' if step.hosted else ''}")
        for name in step.pinned:
            tell(f"pinned, stays: {name}")
        freed, images, pinned = freed + step.freed, images + len(step.images), pinned + len(step.pinned)
    if not images and not pinned:
        fail("nothing here matches; the images there are: registry-mirror ls", 1)
    if images:
        tell(f"{images} image{'s' if images > 1 else ''}, {size(freed)} that nothing else needs.")
    if pinned:
        advice = "unpin first (registry-mirror unpin), or --force"
        if not images:
            fail(f"nothing is removed: {advice}", 1)
        tell(f"Pinned images are not removed: {advice}.")


def _queue_deletions(management: "Management", settings: "Config", step: "RemovalStep") -> None:
    from mirror.hosted.replication.target import queue_deletions

    queue_deletions(management.folder, settings.hosted, step.repository, step.references)


def _print_removal(steps: "Iterable[RemovalStep]", *, dry_run: bool) -> None:
    """Print the removals as JSON. End with 1 as `_summarise` does."""
    done = list(steps)
    removed = [name for step in done for name in step.images]
    pinned = [name for step in done for name in step.pinned]
    freed = sum(step.freed for step in done)
    json_document({"dry_run": dry_run, "removed": removed, "pinned": pinned, "freed": freed})
    if not removed:
        raise typer.Exit(1)


class Choice(Struct, frozen=True, kw_only=True):
    """The flags of `rm`."""

    yes: bool
    dry_run: bool
    force: bool
    as_json: bool


def _remove_there(remote: "Remote", images: str, choice: Choice) -> None:
    from mirror.cli.remote.images import plan_removal, remove_images

    found = plan_removal(
        remote, images, forced=choice.force, quiet=choice.as_json or (choice.yes and not choice.dry_run)
    )
    if choice.dry_run:
        if choice.as_json:
            json_document({"dry_run": True, "removed": found})
        return
    if not choice.yes:
        _confirm()
    remove_images(remote, found, forced=choice.force, as_json=choice.as_json)


def _confirm() -> None:
    if not sys.stdin.isatty():
        fail("nothing was removed: add --yes to remove it", 1)
    if not typer.confirm("Remove?", err=True):
        fail("nothing was removed", 1)


def _usage_json(usage: "RepositoryUsage") -> dict[str, object]:
    kind = "upstream" if usage.is_upstream else "repository"
    return {
        kind: usage.name,
        "size": usage.size,
        "own": usage.own,
        "shared": usage.shared,
        "blobs": usage.blobs,
        **({} if usage.max_share is None else {"counted": usage.counted, "max_share": usage.max_share}),
    }


def _usage_row(usage: "RepositoryUsage", *, ruled: bool) -> tuple[str, ...]:
    """Return the columns of `du`; `ruled`: a rule limits the share of a repository in the table."""
    name = f"{usage.name}/*" if usage.is_upstream else usage.name
    share = "" if usage.max_share is None else f"{size(usage.counted)} of {size(usage.max_share)}"
    row = (name, size(usage.size), size(usage.own), size(usage.shared), str(usage.blobs))
    return (*row, share) if ruled else row
