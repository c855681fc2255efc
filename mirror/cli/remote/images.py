"""`ls` and `rm` at a running mirror."""

from itertools import chain
from typing import Any

from mirror.cli.common import fail
from mirror.cli.output import json_document, json_list, moment, say, table, tell
from mirror.cli.remote.connection import Remote
from mirror.util.units import size


def list_images(remote: Remote, images: str, *, as_json: bool) -> None:
    """Print the tags that match, as far as the visitor may know of them."""
    found = remote.images(remote.pattern(images, any_tag=True))
    if as_json:
        json_list(found)
        return
    first = next(found, None)
    if first is None:
        tell(f"No tag there matches {images}.")
        return
    columns = ("IMAGE", "PLATFORMS", "SIZE", "LAST USED", "STATE")
    rows = map(_row, chain([first], found))
    table(columns, rows, right=("SIZE",), optional=("PLATFORMS", "LAST USED"))


def remove_images(remote: Remote, names: list[str], *, forced: bool, as_json: bool) -> None:
    """Remove images, one after the other."""
    removed, freed = list[str](), 0
    for name in names:
        done = _remove_image(remote, name, forced=forced)
        removed += done["images"]
        freed += done["freed"]
        for each in () if as_json else done["images"]:
            say(f"removed {each}")
    if as_json:
        json_document({"dry_run": False, "removed": removed, "pinned": [], "freed": freed})
        return
    tell(_total(removed, freed))


def plan_removal(remote: Remote, images: str, *, forced: bool, quiet: bool) -> list[str]:
    """Return what a removal takes away, and print it. The command ends with 1 if that is nothing."""
    wanted = remote.pattern(images)
    if wanted.digest is not None and "*" not in wanted.name:
        named = [str(wanted)]  # whatever its tags are
    else:
        named = [each["reference"] for each in remote.images(wanted)]
    plans = [remote.get("removal", reference=each) for each in dict.fromkeys(named)]
    pinned = [name for each in plans for name in each["pinned"]]
    found = [name for each in plans for name in (*each["images"], *(each["pinned"] if forced else ()))]
    if not found:
        advice = (
            "they are pinned: unpin them first, or --force" if pinned else f"nothing there matches {images}"
        )
        fail(f"nothing is removed: {advice}", 1)
    if not quiet:
        for name in found:
            say(f"would remove {name}")
        tell(_total(found, sum(each["freed"] for each in plans)))
    for name in () if forced else pinned:
        tell(f"pinned, stays: {name}")
    return found


def _total(images: list[str], freed: int) -> str:
    return f"{len(images)} image{'' if len(images) == 1 else 's'}, {size(freed)} that nothing else needs."


def _remove_image(remote: Remote, name: str, *, forced: bool) -> dict[str, Any]:
    found: dict[str, Any] = remote.client.change("DELETE", "image", {"reference": name, "forced": forced})
    return found


def _row(image: dict[str, Any]) -> tuple[str, ...]:
    states = [f"{image['missing']} missing" if image["missing"] else "complete"]
    states += ["pinned"] if image["pinned"] else []
    states += ["gone upstream"] if image["gone"] else []
    platforms = ", ".join(map(str, image["platforms"])) or "-"
    return (
        str(image["reference"]),
        platforms,
        size(int(image["size"])),
        moment(image["last_used"]),
        ", ".join(states),
    )
