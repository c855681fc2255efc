"""`du` and `gc` at a running mirror."""

from mirror.cli.output import json_document, table, tell
from mirror.cli.remote.connection import Remote
from mirror.util.units import size


def disk_usage(remote: Remote, images: str, *, as_json: bool) -> None:
    """Print how much room each repository takes, and without a pattern each upstream."""
    pattern = "" if images == "*" else remote.pattern(images, any_tag=True).name
    rows, disk = remote.get("usage", **({"pattern": pattern} if pattern else {})), remote.get("disk")
    if as_json:
        json_document({**disk, "shares": rows})
        return
    if not rows:
        tell(f"No repository there matches {images}.")
        return
    lines = [
        (
            f"{each['name']}/*" if each["is_upstream"] else str(each["name"]),
            size(each["size"]),
            size(each["own"]),
            str(each["blobs"]),
        )
        for each in rows
    ]
    columns = ("SIZE", "OWN", "BLOBS")
    table(("NAME", *columns), lines, right=columns, optional=("BLOBS",))
    tell(
        f"{size(disk['cached'])} in {disk['blobs']} blobs; {size(disk['downloads'])} in running and "
        f"interrupted downloads; {size(disk['pinned'])} pinned; {size(disk['allowed'])} allowed."
    )


def collect_garbage(remote: Remote, *, dry_run: bool, as_json: bool) -> None:
    """Remove garbage, or say what would be removed."""
    done = remote.client.change("POST", "garbage", {"dry_run": dry_run})
    if as_json:
        json_document(done)
        return
    rows = [(str(each["kind"]), str(each["count"]), size(each["size"])) for each in done["removed"]]
    if rows:
        table(("WHAT", "COUNT", "SIZE"), rows, right=("COUNT", "SIZE"))
    words = "would be freed" if dry_run else "freed"
    tell(f"{size(done['freed'])} {words}." if rows else "There is no garbage.")
    if done["excess"]:
        tell(f"Still {size(done['excess'])} over the quota: pinned, being read, or being downloaded.")
