"""The table: what was measured, and the goal of each row."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.bench.report import Spread, spread
from tests.bench.rows import Target, least, most

# Numbers of mirrors on lines of their own, and the bytes that they are to serve by those of one.
COUNTS = {1: 1.0, 2: 1.95, 4: 3.8, 8: 7.5}

NONE = most(0)


@dataclass(frozen=True)
class Row:
    key: str
    work: str
    target: Target | None = None


@dataclass
class Figures:
    """Figures by row, of every round."""

    rounds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, value: float) -> None:
        self.rounds[key].append(value)

    def note(self, text: str) -> None:
        """Add a note for readers of the table, once."""
        if text not in self.notes:
            self.notes.append(text)

    def of(self, row: Row) -> Spread | None:
        values = self.rounds.get(row.key)
        return spread(values) if values else None


def _trouble(kind: str, what: str) -> tuple[Row, ...]:
    return (
        Row(f"{kind}-failed", f"200 clients, slow upstream, {what}: failed pulls", NONE),
        Row(f"{kind}-upstream", "same, upstream bytes / image"),
        Row(f"{kind}-last", "same, last client s"),
    )


ROWS = (
    Row("herd-upstream", "4 mirrors, 200 clients, a cold image: upstream bytes / image", most(1.005)),
    Row("herd-alone", "same, one mirror with 50 clients: last client s"),
    Row("herd-together", "same, 4 mirrors: last client s"),
    Row("herd-last", "same, by one mirror with 50 clients", most(1.15)),
    *_trouble("nothing", "no trouble"),
    *_trouble("killed", "Redis killed, there again after 10 s"),
    *_trouble("flushed", "Redis flushed each second"),
    *_trouble("stopped", "Redis stopped for 10 s"),
    *_trouble("parted", "half of the mirrors parted from Redis and the rest for 10 s"),
    *(
        row
        for count, goal in COUNTS.items()
        for row in (
            Row(f"lines-{count}", f"warm bytes of {count} mirrors, by those of one", least(goal)),
            Row(f"lines-{count}-rate", "same, MB/s"),
        )
    ),
    Row("overhead-blob", "2 KiB config blob, 32 connections: req/s with the tier / without", least(0.98)),
    Row("overhead-blob-cpu", "same, server processor time per request", most(1 / 0.98)),
    Row("overhead-tag", "manifest by tag, 32 connections: req/s with the tier / without", least(0.98)),
    Row("overhead-tag-cpu", "same, server processor time per request", most(1 / 0.98)),
    Row("overhead-large", "warm large blob, 4 connections: bytes/s with the tier / without", least(0.98)),
    Row("overhead-large-cpu", "same, server processor time per byte", most(1 / 0.98)),
    Row("newcomer-store", "large image by ranges from the object store itself, MB/s"),
    Row(
        "newcomer-line", "same from a new, empty mirror, which cannot reach the upstream, over its line, MB/s"
    ),
    Row("newcomer-line-ratio", "same, by the store", least(0.9)),
    Row("newcomer-node", "same, to a client at the mirror's own node, MB/s"),
    Row("newcomer-node-ratio", "same, by the store", least(0.9)),
    Row("newcomer-upstream", "same, bytes of the upstream", NONE),
)


def table(figures: Figures, about: dict[str, str]) -> str:
    """Return the rows that have figures, the machine, and the notes, as Markdown."""
    lines = ["| work | found | goal | reached |", "| --- | --- | --- | --- |"]
    for row in ROWS:
        found = figures.of(row)
        if found is not None:
            goal = str(row.target) if row.target else "-"
            lines.append(f"| {row.work} | {found} | {goal} | {_verdict(row, found)} |")
    lines += ["", "; ".join(f"{name} {value}" for name, value in about.items()) + "."]
    return "\n".join([*lines, *(f"- {note}" for note in figures.notes)]) + "\n"


def document(figures: Figures, about: dict[str, str]) -> dict[str, Any]:
    """Return all figures as JSON, with every round."""
    rows = [
        {"key": row.key, "work": row.work, "rounds": figures.rounds[row.key], "goal": str(row.target or "")}
        for row in ROWS
        if row.key in figures.rounds
    ]
    return {"about": about, "rows": rows, "notes": figures.notes}


def _verdict(row: Row, found: Spread) -> str:
    if row.target is None:
        return "-"
    return "yes" if row.target.reached(found.median) else "no"
