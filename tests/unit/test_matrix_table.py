"""Table of clients in docs/clients.md: the rows that a run of tests/e2e/test_matrix.py writes."""

import pytest

from tests.e2e.matrix.roster import CELLS, KNOWN, Cell, Client
from tests.e2e.matrix.table import (
    BEGIN,
    DOCUMENT,
    END,
    FAILED,
    NOT_RUN,
    SEEN,
    STATES,
    Matrix,
    table_of,
    with_table,
)
from tests.e2e.matrix.ways import Way
from tests.pinned import pinned


def test_clients_document_has_a_row_for_each_pinned_client_and_way() -> None:
    """The committed table was written by a run with the versions that are pinned now."""
    table = table_of(DOCUMENT.read_text())
    for cell in CELLS:
        if cell.client.pinned:
            row = f"| {cell.client.name} | {cell.client.version} | {cell.way.value} | "
            assert row in table, "run pytest tests/e2e/test_matrix.py --write-matrix"
    assert NOT_RUN not in table


def test_clients_document_shows_the_failures_that_are_known() -> None:
    """A failure has a footnote, and there are as many as the tests expect."""
    table = table_of(DOCUMENT.read_text())
    assert table.count(FAILED) == table.count(f"{FAILED} (") == len(KNOWN)


def test_clients_of_the_matrix_are_all_that_are_pinned() -> None:
    """Every client that is built is driven."""
    # A suite of tests, a library for the pages, and a registry for the bench.
    clients = pinned().keys() - {"conformance", "axe-core", "distribution"}
    assert {name for cell in CELLS for name in cell.client.pinned} == clients


def test_matrix_row_shows_what_happened_in_each_state() -> None:
    """A state whose block raised is shown as a failure, one that no test reached as not run."""
    client = Client("crane", lambda *_: "", (Way.NAME,), ("crane",))
    cell, matrix = Cell(client, Way.NAME), Matrix()
    with matrix.cell(cell, "miss"):
        pass
    with pytest.raises(AssertionError), matrix.cell(cell, "hit"):
        raise AssertionError
    shown = {state: matrix.outcomes.get((cell, state), NOT_RUN) for state in STATES}
    assert shown == {"miss": SEEN, "join": NOT_RUN, "hit": FAILED, "stale": NOT_RUN, "offline": NOT_RUN}


def test_matrix_table_is_written_between_the_markers() -> None:
    """A second table replaces the first; the text before and after the markers is not touched."""
    document = with_table(f"before\n{BEGIN}\n{END}\nafter\n", "| one |")
    assert document == f"before\n{BEGIN}\n\n| one |\n\n{END}\nafter\n"
    assert with_table(document, "| two |") == document.replace("one", "two")
    assert table_of(document) == "\n\n| one |\n\n"
    assert DOCUMENT.read_text().count(BEGIN) == DOCUMENT.read_text().count(END) == 1
