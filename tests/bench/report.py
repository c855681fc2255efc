"""Report: figures to medians, ratios, a JSON document and a Markdown table. Pure."""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.contestants import BASE, DISTRIBUTION, DISTRIBUTION_3, MIRROR, PROXY
from tests.bench.rows import NOTES, ROWS, Row, Target

HEADER = (
    "work",
    "mirror",
    "distribution 2.8",
    "nginx proxy",
    "nginx static or direct",
    "ratio",
    "to reach",
    "reached?",
)


# One more column when it took part, behind that of distribution 2.8.
NEWER = "distribution 3.1"

# Two more columns when another checkout took part.
BASE_HEADER = ("base", "ratio to base")


@dataclass(frozen=True)
class Spread:
    """Median of the rounds, lowest and highest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return shown(self.median)
        return f"{shown(self.median)} ({shown(self.low)}..{shown(self.high)})"

    def as_json(self) -> dict[str, float]:
        return {"median": self.median, "min": self.low, "max": self.high}


def spread(values: Iterable[float]) -> Spread:
    ordered = sorted(values)
    return Spread(median(ordered), ordered[0], ordered[-1])


def shown(value: float) -> str:
    """Format with three significant digits at most."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.2g}"


@dataclass
class Results:
    """Figures by row, contestant and round."""

    rounds: dict[str, dict[str, dict[int, float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    notes: list[str] = field(default_factory=lambda: list(NOTES))

    def add(self, row: str, contestant: str, number: int, value: float) -> None:
        self.rounds[row][contestant][number] = value

    def of(self, row: str, contestant: str) -> Spread | None:
        """Return a contestant's figures; None when it did not take part."""
        figures = self.rounds[row].get(contestant, {})
        return spread(figures.values()) if figures else None

    def ratio(self, row: str, rival: str) -> Spread | None:
        """Return the mirror's figures by the rival's, round by round: a drift of the machine cancels out."""
        ours, theirs = self.rounds[row].get(MIRROR, {}), self.rounds[row].get(rival, {})
        ratios = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
        return spread(ratios) if ratios else None

    def against(self, row: str, target: Target) -> Spread | None:
        """Return the figures to compare with the target."""
        return self.ratio(row, target.rival) if target.rival else self.of(row, MIRROR)


def markdown(results: Results, about: dict[str, str]) -> str:
    """Return the table of the rows that have figures, the machine, and the notes."""
    rows = [row for row in ROWS if results.rounds.get(row.key)]
    based, newer = (any(results.of(row.key, name) for row in rows) for name in (BASE, DISTRIBUTION_3))
    header = [*HEADER, *(BASE_HEADER if based else ())]
    table = [[*_cells(row, results), *(_base_cells(row, results) if based else ())] for row in rows]
    if newer:
        header.insert(3, NEWER)
        for row, cells in zip(rows, table, strict=True):
            cells.insert(3, _shown(results.of(row.key, DISTRIBUTION_3)))
    lines = [_line(header), _line(["---"] * len(header)), *map(_line, table)]
    lines += ["", "; ".join(f"{name} {value}" for name, value in about.items()) + "."]
    lines += ["", *(f"- {note}" for note in results.notes)]
    return "\n".join(lines) + "\n"


def document(results: Results, about: dict[str, str]) -> dict[str, Any]:
    """Return the report as JSON, with every round."""
    rows = [_row_json(row, results) for row in ROWS if results.rounds.get(row.key)]
    return {"about": about, "rows": rows, "notes": results.notes}


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the options for the folder of a run and for the files of its results."""
    add = parser.add_argument
    add("--folder", type=Path, help="folder of caches and content (default: that of temporary files)")
    add("--json", type=Path, metavar="FILE", help="write the figures of every round")
    add("--markdown", type=Path, metavar="FILE", help="write the printed table")


def write_outputs(arguments: argparse.Namespace, table: str, figures: dict[str, Any]) -> None:
    """Print the table, and write it and the figures where the options say."""
    print(table)
    if arguments.markdown:
        arguments.markdown.write_text(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row, results: Results) -> list[str]:
    figures = [results.of(row.key, name) for name in (MIRROR, DISTRIBUTION, PROXY, row.last)]
    cells = [_shown(figure) for figure in figures]
    if figures[-1] is not None:
        cells[-1] += f" {row.last.removeprefix('nginx ')}"
    judged = [(target, results.against(row.key, target)) for target in row.targets]
    ratios = [str(found) if found and target.rival else "-" for target, found in judged]
    reached = [_verdict(target, found) for target, found in judged]
    return [row.work, *cells, *("; ".join(each) or "-" for each in (ratios, map(str, row.targets), reached))]


def _base_cells(row: Row, results: Results) -> list[str]:
    """Return the figure of the other checkout, and the mirror's by it."""
    found = results.of(row.key, BASE), results.ratio(row.key, BASE)
    return [_shown(each) for each in found]


def _shown(figure: Spread | None) -> str:
    return "-" if figure is None else str(figure)


def _verdict(target: Target, found: Spread | None) -> str:
    if found is None:
        return "-"
    return "yes" if target.reached(found.median) else "no"


def _row_json(row: Row, results: Results) -> dict[str, Any]:
    contestants = {
        name: {"rounds": list(figures.values()), **spread(figures.values()).as_json()}
        for name, figures in results.rounds[row.key].items()
    }
    targets = []
    for target in row.targets:
        found = results.against(row.key, target)
        targets.append(
            {
                "to_reach": str(target),
                "found": found and found.as_json(),
                "reached": found and target.reached(found.median),
            }
        )
    return {"key": row.key, "work": row.work, "contestants": contestants, "targets": targets}
