"""Words for what an export lacks: lines for people and events for programs."""

from typing import TYPE_CHECKING

from mirror.cli.output import json_line, tell
from mirror.util.units import size

if TYPE_CHECKING:
    from mirror.manage.carry.contents import Missing


def show_missing(missing: "Missing", *, as_json: bool) -> None:
    """Show one thing that is missing."""
    if as_json:
        from msgspec.structs import asdict

        json_line({"event": "missing", **asdict(missing)})
    else:
        tell(f"{missing.image}: {line_of(missing)}")


def advice(missing: "tuple[Missing, ...]") -> str:
    """Return what to do about all that is missing."""
    count = f"{len(missing)} thing{'s are' if len(missing) > 1 else ' is'} missing, nothing is exported."
    advice = "Pull it through the mirror, or let --fetch download it; --allow-missing exports the rest."
    if all(each.kind == "referrer" for each in missing):
        advice = "Let --fetch download it, or export without signatures: --no-referrers."
    return f"{count}\n{advice}"


def line_of(missing: "Missing") -> str:
    """Return what is missing, as a clause."""
    subject = {
        "image": "nothing of it is here",
        "platform": f"{missing.platform or 'each platform'} is not here",
        "manifest": f"the manifest {missing.digest} is not here",
        "blob": f"{missing.digest} ({size(missing.size)}) is not here",
        "referrer": f"{missing.digest}, which refers to it, is not here",
    }[missing.kind]
    if missing.unconfirmed:
        return f"{missing.digest} is here for other repositories only, and came with an account; pull it"
    return subject
