"""The command `hosted status`: room, uploads, and what waits to be sent to others."""

from typing import TYPE_CHECKING, Any

from mirror.cli.common import fail, opened
from mirror.cli.options import AsJson, CacheDir, ConfigFile
from mirror.cli.output import json_list, moment, say, tell
from mirror.util.units import size

if TYPE_CHECKING:
    from mirror.config.schema import Config
    from mirror.store.cache_dir import CacheDirectory

STATUS_HELP = """Show what hosted registries hold, and what waits to be sent to others.

\b
    registry-mirror hosted status
    registry-mirror hosted status --json

For each registry of [[hosted.mirror_to]] it shows how many tags and manifests wait, since when, and why the
last one was not taken. The mirror need not run.
"""


def hosted_status(config: ConfigFile = None, cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    with opened(config, cache_dir) as (management, settings):
        if not settings.hosted:
            fail("the configuration has no [[hosted]]: docs/hosted.md has an example", 1)
        rows = _rows(management.folder, settings)
    if as_json:
        json_list(rows)
        return
    for row in rows:
        quota = f" of {size(row['quota'])}" if row["quota"] else ""
        say(f"{row['name']}: {size(row['bytes'])}{quota}, {row['webhooks_waiting']} notifications wait")
        for each in row["mirror_to"]:
            since = f" since {moment(each['oldest'])}" if each["oldest"] else ""
            say(f"  {each['url']}: {each['waiting']} wait{since}")
            if each["reason"]:
                tell(f"  {each['url']}: {each['reason']} ({each['attempts']} attempts)")


def _rows(folder: "CacheDirectory", settings: "Config") -> list[dict[str, Any]]:
    from mirror.hosted.notify.outbox import Outbox
    from mirror.hosted.replication.target import ReplicaTarget
    from mirror.store.metadata.hosted_queries import HostedQueries

    queries, outbox = HostedQueries(folder.index), Outbox(folder.path)
    waiting = len(outbox.names())
    return [
        {
            "name": each.name,
            "bytes": queries.held(each.name),
            "quota": each.quota,
            "webhooks_waiting": waiting if each.webhooks else 0,
            "mirror_to": [_target(ReplicaTarget(each.name, one, folder)) for one in each.mirror_to],
        }
        for each in settings.hosted
    ]


def _target(target: Any) -> dict[str, Any]:
    entries = target.queue.entries()
    failed = max(entries, key=lambda each: each.attempts, default=None)
    return {
        "url": target.url,
        "waiting": len(entries),
        "oldest": entries[0].queued if entries else None,
        "attempts": failed.attempts if failed is not None else 0,
        "reason": failed.reason if failed is not None else "",
    }
