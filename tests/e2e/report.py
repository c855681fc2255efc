"""Table of what the fault suite saw, in Markdown, for those who ask for it. A pytest plugin.

It also has the options of the soak and of the stress tests: duration and seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.parallel import lines

CLIENTS = ("docker", "containerd", "podman")


@dataclass(frozen=True)
class Seen:
    """Outcome of one fault for one client, and the seconds until then."""

    outcome: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.outcome}, {self.seconds:.1f} s"


@dataclass
class Report:
    """Table with a row for each fault, state of the cache and next endpoint, and a cell for each client.

    `notes` are lines for the end of the run.
    """

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
NOTES = "what long tests tell"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults-table", metavar="FILE", help="write what clients saw of each fault; - for the terminal"
    )
    parser.addoption(
        "--soak", type=float, default=0.65, metavar="MINUTES", help="duration of the soak (0.65)"
    )
    parser.addoption("--soak-seed", type=int, metavar="NUMBER", help="repeat the soak with this seed")
    parser.addoption(
        "--stress", type=float, default=0.4, metavar="MINUTES", help="duration of the stress tests (0.4)"
    )
    parser.addoption(
        "--stress-seed", type=int, metavar="NUMBER", help="repeat the stress test with this seed"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report(notes=lines(config, NOTES))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[REPORT]
    target, table = config.getoption("--faults-table"), "\n".join(report.table())
    if target == "-":
        terminalreporter.section("faults, and what clients saw of them")
        terminalreporter.line(table)
    elif target:
        Path(target).write_text(f"{table}\n")
    for note in report.notes:
        terminalreporter.line(note)
