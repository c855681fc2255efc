"""Units, tables and lists as commands print them."""

import re
import sys

import pytest

from mirror.cli.output import ago, json_list, moment, table


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5.0, "just now"),
        (59.0, "just now"),
        (60.0, "1 minute ago"),
        (7300.0, "2 hours ago"),
        (90_000.0, "1 day ago"),
        (400 * 86400.0, "400 days ago"),
    ],
)
def test_ago_uses_the_largest_unit(seconds: float, shown: str) -> None:
    """A unit that has not passed once is not used."""
    assert ago(seconds) == shown


def test_table_in_a_pipe_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    """Times are absolute, so that two runs print the same."""
    table(("A", "B"), [("x", moment(0.0)), ("y", moment(None))])
    assert capsys.readouterr().out == "A\tB\nx\t1970-01-01T00:00:00Z\ny\t-\n"


def test_json_list_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list is JSON too."""
    json_list([{"a": 1}, 2])
    json_list([])
    assert capsys.readouterr().out == '[\n{"a": 1},\n2\n]\n[]\n'


HEAD = ("IMAGE", "PLATFORMS", "SIZE", "STATE")
ROWS = [("quay.io/org/name:1", "linux/amd64", "1 MiB", "complete"), ("x", "-", "12 B", "2 missing")]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            80,
            [
                "IMAGE               PLATFORMS     SIZE  STATE",
                "quay.io/org/name:1  linux/amd64  1 MiB  complete",
                "x                   -             12 B  2 missing",
            ],
        ),
        (45, ["IMAGE                SIZE  STATE", "quay.io/org/name:1  1 MiB  complete"]),
        (33, ["IMAGE               STATE", "quay.io/org/name:1  complete"]),
        (9, ["IMAGE               STATE", "quay.io/org/name:1  complete"]),
    ],
)
def test_table_on_a_narrow_terminal_drops_columns(
    width: int, lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optional columns go one by one, and no name is ever wrapped."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    table(HEAD, ROWS, right=["SIZE"], optional=["PLATFORMS", "SIZE"])
    shown = re.sub(r"\x1b\[[0-9]*m", "", capsys.readouterr().out).splitlines()
    assert shown[: len(lines)] == lines
    assert len(shown) == 3


def test_table_without_rows_has_a_head(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk usage of an empty cache, for instance."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    table(HEAD, [], right=["SIZE"], optional=["SIZE"])
    shown = re.sub(r"\x1b\[[0-9]*m", "", capsys.readouterr().out)
    assert shown.split() == ["IMAGE", "PLATFORMS", "SIZE", "STATE"]
