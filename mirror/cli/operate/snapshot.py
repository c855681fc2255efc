"""A moment of a running mirror, as `top` shows it: the answers of several questions together."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from mirror.cli.remote.admin_client import AdminClient, NoAnswer, Refused
from mirror.web.activity.entries import EndedRequest, RunningDownload, RunningRequest, UpstreamState

# Ended requests that are asked for: more than a terminal has lines.
RECENT = 100


class VisitorFacts(Struct, frozen=True):
    """The asking visitor. `operator`: whether everything is shown."""

    version: str
    address: str
    operator: bool


class LineRate(Struct, frozen=True):
    """Bytes a second from upstreams and to clients, at a moment."""

    moment: float
    received: float
    sent: float


class NowActivity(Struct, frozen=True, kw_only=True):
    """Requests and downloads of all workers. `recent`: the latest first."""

    workers: int
    requests: list[RunningRequest]
    downloads: list[RunningDownload]
    recent: list[EndedRequest]
    traffic: list[LineRate] = field(default_factory=list)
    upstreams: list[UpstreamState] = field(default_factory=list)


class NowDisk(Struct, frozen=True, kw_only=True):
    """Room of the cache, in bytes."""

    cached: int
    blobs: int
    downloads: int
    allowed: Annotated[int, Meta(ge=0)]
    free: int


class NowTrouble(Struct, frozen=True):
    """Something that is wrong."""

    what: str
    reason: str
    to_do: str


class Snapshot(Struct, frozen=True, kw_only=True):
    """A moment. `disk` and `troubles` are for operators: None and empty for others."""

    about: VisitorFacts
    activity: NowActivity
    disk: NowDisk | None = None
    troubles: list[NowTrouble] = field(default_factory=list)


def ask(client: AdminClient) -> dict[str, Any]:
    """Return the answers of the API by question; those for operators alone are left out where it refuses."""
    found = {"about": client.get("about"), "activity": client.get(f"activity?recent={RECENT}")}
    if isinstance(found["about"], dict) and found["about"].get("operator"):
        for name in ("disk", "troubles"):
            try:
                found[name] = client.get(name)
            except Refused:
                break
    return found


def understood(answers: dict[str, Any]) -> Snapshot:
    """Return the answers as values. Raises NoAnswer for those of some other program."""
    try:
        return msgspec.convert(answers, Snapshot)
    except msgspec.ValidationError as error:
        raise NoAnswer(f"the mirror's answer is not as this version knows it: {error}") from None
