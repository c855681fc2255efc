"""Units, tables and lists as commands print them."""

import pytest

from mirror.cli.output import ago, json_list, moment, size, table


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1024, "1 KiB"),
        (1_500_000, "1.43 MiB"),
        (1023 * 1024, "0.999 MiB"),
        (200 * 1024**3, "200 GiB"),
        (5000 * 1024**5, "5e+03 PiB"),
    ],
)
def test_size_has_three_digits(count: int, shown: str) -> None:
    """Units are powers of 1024."""
    assert size(count) == shown


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
