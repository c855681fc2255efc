"""Table of what each client in each way saw in each state, written into docs/clients.md. A pytest plugin."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.matrix.roster import CELLS, Cell, known

DOCUMENT = Path(__file__).parents[3] / "docs" / "clients.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"

STATES = ("miss", "join", "hit", "stale", "offline")
SEEN, FAILED, NOT_RUN = "yes", "**fails**", "not run"


@dataclass
class Matrix:
    """Outcomes by row and state."""

    outcomes: dict[tuple[Cell, str], str] = field(default_factory=dict)

    @contextmanager
    def cell(self, cell: Cell, state: str) -> Iterator[None]:
        """Note whether the body of the `with` raises."""
        self.outcomes[cell, state] = FAILED
        yield
        self.outcomes[cell, state] = SEEN

    def lines(self) -> Iterator[str]:
        yield f"| client | version | the upstream is named by | {' | '.join(STATES)} |"
        yield f"| {' | '.join(['---'] * (len(STATES) + 3))} |"
        notes: list[str] = []
        for cell in CELLS:
            outcomes = [self._outcome(cell, state, notes) for state in STATES]
            yield f"| {cell.client.name} | {version(cell)} | {cell.way.value} | {' | '.join(outcomes)} |"
        if notes:
            yield ""
        for number, note in enumerate(notes, 1):
            yield f"{number}. {note}"

    def _outcome(self, cell: Cell, state: str, notes: list[str]) -> str:
        outcome = self.outcomes.get((cell, state), NOT_RUN)
        reason = known(cell, state)
        if outcome is not FAILED or not reason:
            return outcome
        if reason not in notes:
            notes.append(reason)
        return f"{outcome} ({notes.index(reason) + 1})"


def version(cell: Cell) -> str:
    """Return the version of a client; of Debian's, that of its package; nothing of a script."""
    if not cell.client.package:
        return cell.client.version
    command = ["dpkg-query", "-W", "-f", "${Version}", cell.client.package]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return re.split(r"[+~]", found)[0] or NOT_RUN


def table_of(document: str) -> str:
    """Return what is between the markers."""
    return document.partition(BEGIN)[2].partition(END)[0]


def with_table(document: str, table: str) -> str:
    """Return the document with another table between the markers."""
    before, after = document.partition(BEGIN)[0], document.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


MATRIX = pytest.StashKey[Matrix]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-matrix",
        action="store_true",
        help="write what clients saw of the mirror into docs/clients.md",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MATRIX] = Matrix()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--write-matrix"):
        table = "\n".join(config.stash[MATRIX].lines())
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(), table))
        terminalreporter.line(f"wrote the table of clients into {DOCUMENT}")
