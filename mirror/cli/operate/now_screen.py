"""The screen of `top`: a moment of the mirror as lines for a terminal of some size; pure."""

import time
from collections.abc import Iterable, Sequence

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mirror.cli.operate.snapshot import LineRate, Snapshot
from mirror.util.terminal_log import printable
from mirror.util.units import duration, size
from mirror.web.activity.entries import EndedRequest, RunningDownload, RunningRequest, SourceState

# Bars of a small chart, the lowest first.
BARS = " ▁▂▃▄▅▆▇█"

# Most samples in a chart, of five seconds each: five minutes.
MOST_SAMPLES = 60

# Colours of outcomes, and of the states of a breaker.
COLOURS = {
    "hit": "green", "join": "green", "miss": "cyan", "passed": "cyan", "stale": "yellow", "waiting": "dim",
    "error": "red", "denied": "red", "limited": "yellow", "challenged": "yellow",
    "closed": "green", "half_open": "yellow", "open": "red",
}  # fmt: skip

# The least lines of a list that has entries, its heading included.
LEAST_LINES = 3


class Column(Struct, frozen=True):
    """A column of a list. `needs`: the least width of a terminal, in columns, on which it is shown."""

    title: str
    needs: int = 0
    right: bool = False
    wide: bool = False


class Listing(Struct, frozen=True):
    """A list under a heading. `weight`: its share of the lines where not all fit."""

    heading: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Text]]
    weight: int = 1


REQUESTS = (
    Column("client", needs=100),
    Column("what", wide=True),
    Column("outcome"),
    Column("sent", right=True),
    Column("rate", right=True, needs=60),
    Column("since", right=True, needs=80),
    Column("why", needs=140, wide=True),
)
DOWNLOADS = (
    Column("repository", wide=True),
    Column("digest", needs=100),
    Column("here", right=True),
    Column("rate", right=True, needs=60),
    Column("clients", right=True, needs=80),
    Column("from", needs=120, wide=True),
)
UPSTREAMS = (
    Column("source", wide=True),
    Column("state"),
    Column("latency", right=True, needs=60),
    Column("speed", right=True, needs=100),
    Column("connections", right=True, needs=120),
    Column("rate limit", needs=80),
)
RECENT = (
    Column("ended", needs=60),
    Column("client", needs=100),
    Column("what", wide=True),
    Column("outcome"),
    Column("bytes", right=True, needs=60),
    Column("took", right=True, needs=80),
    Column("why", needs=140, wide=True),
)


def screen(snapshot: Snapshot, url: str, width: int, height: int | None, note: str = "") -> RenderableType:
    """Return what a terminal of `width` and `height` shows; everything if `height` is None.

    `note`: a message, for instance that the mirror does not answer any more.
    """
    head = _head(snapshot, url, width)
    if note:
        head.append(_text(note, "bold red"))
    head += [_text(f"{each.what}: {each.reason}. {each.to_do}", "yellow") for each in snapshot.troubles[:4]]
    listings = [each for each in _listings(snapshot, time.time()) if each.rows]
    room = None if height is None else height - len(head)
    lines = shares([len(each.rows) + 2 for each in listings], [each.weight for each in listings], room)
    tables = (
        _table(each, width, count)
        for each, count in zip(listings, lines, strict=True)
        if count >= LEAST_LINES
    )
    return Group(*(_cut(each) for each in head), *tables)


def shares(wanted: Sequence[int], weights: Sequence[int], room: int | None) -> list[int]:
    """Return how many of the `wanted` lines each list gets of `room`; lists get more by their weights."""
    if room is None or sum(wanted) <= room:
        return list(wanted)
    found = [0] * len(wanted)
    for place, need in enumerate(wanted):  # the first lists first, with the least that says something
        found[place] = min(need, LEAST_LINES) if sum(found) + LEAST_LINES <= room else 0
    while (rest := room - sum(found)) > 0:
        hungry = [each for each in range(len(wanted)) if 0 < found[each] < wanted[each]]
        if not hungry:
            break
        least = min(hungry, key=lambda each: found[each] / weights[each])
        found[least] += min(1, rest)
    return found


def spark(rates: Iterable[float]) -> str:
    """Return a chart of one line: each rate as a bar, the largest one the highest."""
    values = list(rates)
    most = max(values, default=0.0)
    if most <= 0:
        return BARS[0] * len(values)
    return "".join(BARS[min(len(BARS) - 1, int(each / most * (len(BARS) - 1) + 0.999))] for each in values)


def _head(snapshot: Snapshot, url: str, width: int) -> list[Text]:
    activity, disk = snapshot.activity, snapshot.disk
    workers = f"{activity.workers} worker{'s' if activity.workers != 1 else ''}"
    first = (
        f"registry-mirror {snapshot.about.version}  {url}  {workers}  {time.strftime('%H:%M:%S')}  q quits"
    )
    lines = [_text(first, "bold")]
    if activity.traffic:
        lines.append(_traffic(activity.traffic, width))
    if disk is not None:
        text = (
            f"cache {size(disk.cached)} of {size(disk.allowed)} in {disk.blobs} blobs, {size(disk.free)} free"
        )
        if disk.downloads:
            text += f", {size(disk.downloads)} of downloads"
        lines.append(_text(text))
    if not snapshot.about.operator:
        lines.append(_text(f"only what {snapshot.about.address} may see: --token-file shows all", "yellow"))
    return lines


def _traffic(rates: Sequence[LineRate], width: int) -> Text:
    last = rates[-1]
    text = f"in {size(round(last.received))}/s  out {size(round(last.sent))}/s  "
    room = min(MOST_SAMPLES, width - len(text))
    return _text(text + spark(each.sent for each in rates[-room:]) if room > 0 else text)


def _listings(snapshot: Snapshot, now: float) -> Sequence[Listing]:
    activity = snapshot.activity
    sources = [(each.name, source) for each in activity.upstreams for source in each.sources]
    used = [(name, each) for name, each in sources if each.speed or each.breaker != "closed"]
    requests = [_request(each, now) for each in activity.requests]
    return (
        Listing(f"{len(requests)} requests", REQUESTS, requests, 3),
        Listing(
            f"{len(activity.downloads)} downloads",
            DOWNLOADS,
            [_download(each) for each in activity.downloads],
            2,
        ),
        Listing("upstreams", UPSTREAMS, [_source(name, each) for name, each in used]),
        Listing("ended", RECENT, [_ended_request(each, now) for each in activity.recent], 2),
    )


def _request(each: RunningRequest, now: float) -> list[Text]:
    sent = size(each.sent)
    if each.length:
        sent = f"{sent} of {size(each.length)} {min(100, each.sent * 100 // each.length)}%"
    return [
        _text(_client(each)),
        _text(_target(each.upstream, each.repository, each.reference or each.digest, each.kind)),
        _colour(each.outcome),
        _text(sent),
        _text(f"{size(round(each.rate))}/s"),
        _text(_seconds(now - each.began)),
        _text(each.why or ""),
    ]


def _download(each: RunningDownload) -> list[Text]:
    here = size(each.received)
    if each.size:
        here = f"{here} of {size(each.size)} {min(100, each.received * 100 // each.size)}%"
    clients = "prefetch" if each.prefetch and not each.clients else str(each.clients)
    return [
        _text(f"{each.upstream}/{each.repository}"),
        _text(_short(each.digest)),
        _text("queued" if each.queued else here),
        _text(f"{size(round(each.rate))}/s"),
        _text(clients),
        _text(", ".join(_sources(each))),
    ]


def _sources(each: RunningDownload) -> list[str]:
    """Return where the bytes of a download come from now: connections to each source, and their rate."""
    return [
        f"{source} x{count} {size(round(each.rates.get(source, 0.0)))}/s"
        for source, count in each.sources.items()
    ]


def _source(upstream: str, each: SourceState) -> list[Text]:
    limits = [
        f"{account.account}: {account.remaining} of {account.limit}"
        for account in each.accounts
        if account.limit is not None and account.remaining is not None
    ]
    name = upstream if each.source in (upstream, "") else f"{upstream} {each.source}"
    return [
        _text(name),
        _colour(each.breaker),
        _text(duration(each.latency * 1000) if each.speed else ""),
        _text(f"{size(round(each.speed))}/s" if each.speed else ""),
        _text(str(each.connections)),
        _text(", ".join(limits)),
    ]


def _ended_request(each: EndedRequest, now: float) -> list[Text]:
    outcome = _colour(each.outcome)
    if each.status not in (200, 206):
        outcome.append(f" {each.status}", "red" if each.status >= 400 else "")
    if each.count > 1:
        outcome.append(f" x{each.count}")
    return [
        _text(f"{_seconds(now - each.ended)} ago"),
        _text(_client(each)),
        _text(_target(each.upstream, each.repository, each.reference, each.kind)),
        outcome,
        _text(size(each.bytes)),
        _text(duration(each.seconds * 1000)),
        _text(each.why or ""),
    ]


def _client(each: RunningRequest | EndedRequest) -> str:
    return f"{each.client} {' '.join(each.identity)}".strip()


def _target(upstream: str | None, repository: str | None, reference: str | None, kind: str) -> str:
    if repository is None:
        return f"{upstream} {kind}" if upstream else kind
    if reference is None:
        return f"{upstream}/{repository} {kind}"
    mark = "@" if ":" in reference else ":"
    return f"{upstream}/{repository}{mark}{_short(reference) if mark == '@' else reference}"


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12] or digest[:12]


def _seconds(seconds: float) -> str:
    return f"{max(0, seconds):.0f} s" if seconds < 99.5 else f"{seconds / 60:.0f} min"


def _colour(word: str) -> Text:
    return _text(word, COLOURS.get(word, ""))


def _text(text: str, style: str = "") -> Text:
    """Return one line of text that commands no terminal."""
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def _cut(line: Text) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_row(line)
    return grid


def _table(listing: Listing, width: int, lines: int) -> RenderableType:
    """Return a list in so many lines, with its heading and the titles of its columns."""
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), show_header=True)
    shown = [place for place, each in enumerate(listing.columns) if width >= each.needs]
    for place in shown:
        each = listing.columns[place]
        table.add_column(
            Text(each.title, "dim"),
            justify="right" if each.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if each.wide else None,
        )
    for row in listing.rows[: lines - 2]:
        table.add_row(*(row[place] for place in shown))
    return Group(_cut(_text(listing.heading, "bold reverse")), table)
