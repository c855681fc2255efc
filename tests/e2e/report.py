"""What the fault suite saw, as a table in Markdown: in the terminal, and in a file. A pytest plugin.

Also the options of what goes on for as long as it is told to: the soak, and the stress.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CLIENTS = ("docker", "containerd", "podman")


@dataclass(frozen=True)
class Seen:
    """What one client saw of one fault, and how long that took in seconds."""

    outcome: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.outcome}, {self.seconds:.1f} s"


@dataclass
class Report:
    """Rows by fault, state of the cache and next endpoint; a cell for each client."""

    rows: dict[tuple[str, str, str], dict[str, Seen]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def saw(self, row: tuple[str, str, str], client: str, seen: Seen) -> None:
        self.rows.setdefault(row, {})[client] = seen

    def table(self) -> Iterator[str]:
        yield "| what goes wrong | in the mirror | next endpoint | Docker | containerd | Podman |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for row, seen in self.rows.items():
            cells = [*row, *(str(seen.get(client, "")) for client in CLIENTS)]
            yield f"| {' | '.join(cells)} |"


REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", type=Path, metavar="FILE", help="write what clients saw of each fault")
    parser.addoption(
        "--soak", type=float, default=0.65, metavar="MINUTES", help="how long the soak goes on (0.65)"
    )
    parser.addoption("--soak-seed", type=int, metavar="NUMBER", help="repeat the soak that had this seed")
    parser.addoption(
        "--stress", type=float, default=0.4, metavar="MINUTES", help="how long the stress goes on (0.4)"
    )
    parser.addoption("--stress-seed", type=int, metavar="NUMBER", help="repeat the stress that had this seed")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[REPORT]
    if report.rows:
        table = "\n".join(report.table())
        terminalreporter.section("faults, and what clients see of them")
        terminalreporter.line(table)
        if (path := config.getoption("--faults-table")) is not None:
            path.write_text(f"{table}\n")
    for note in report.notes:
        terminalreporter.line(note)
