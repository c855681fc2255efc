"""Report of the bench: figures become medians, ratios, a table and a document; nothing is measured here."""

import socket
from pathlib import Path

import pytest

from tests.bench.content import Site
from tests.bench.contestants import DISTRIBUTION, DISTRIBUTION_3, MIRROR, PROXY, STATIC
from tests.bench.origin import slow_origin
from tests.bench.report import Results, document, markdown, shown, spread
from tests.bench.rows import ROWS, least, most
from tests.bench.throttle import Cdn, Line, Registry, Request


def results(row: str, **rounds: list[float]) -> Results:
    """Return the figures of one row: by contestant, a value for each round."""
    made = Results(notes=[])
    for contestant, values in rounds.items():
        for number, value in enumerate(values, 1):
            made.add(row, {"proxy": PROXY, "static": STATIC}.get(contestant, contestant), number, value)
    return made


def cells(table: str, start: str) -> list[str]:
    """Return the cells of the line that begins with `start`."""
    line = next(line for line in table.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_spread_is_median_lowest_and_highest() -> None:
    """The order of the rounds does not matter; an even number of rounds has the middle of two."""
    assert str(spread([3.0, 1.0, 2.0])) == "2.00 (1.00..3.00)"
    assert spread([1.0, 2.0]).median == 1.5
    assert str(spread([0.5])) == "0.5"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (69_700.4, "69,700"),
        (100, "100"),
        (93.21, "93.2"),
        (2.345, "2.35"),
        (0.0191, "0.019"),
        (0.0, "0.00"),
    ],
)
def test_numbers_have_their_significant_digits(value: float, text: str) -> None:
    """Numbers from a hundred on are whole; below they have two or three digits."""
    assert shown(value) == text


def test_ratio_is_taken_within_each_round() -> None:
    """A machine half as fast in one round changes no ratio; a round without one of the two is left out."""
    made = results("warm-blob-1", mirror=[2.0, 1.0, 9.0], static=[4.0, 2.0])
    ratio = made.ratio("warm-blob-1", STATIC)
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == (0.5, 0.5, 0.5)
    assert made.ratio("warm-blob-1", PROXY) is None


def test_targets_print_and_judge() -> None:
    """At least and at most include their bound; a target is relative to a rival or absolute."""
    target = least(0.95, STATIC)
    assert str(target) == "at least 0.95 of nginx static"
    assert target.reached(0.95)
    assert not target.reached(0.94)
    assert str(most(50, unit="ms")) == "at most 50 ms"
    assert most(50).reached(50)
    assert not most(50).reached(50.1)
    assert str(least(2500)) == "at least 2,500"


def test_table_has_a_line_for_each_measured_row() -> None:
    """A line has figures, ratio, target and verdict, and dashes for contestants that took no part."""
    made = results("warm-blob-1", mirror=[3.0, 3.2, 2.8], static=[3.0, 3.0, 3.0], distribution=[2.0])
    made.notes.append("a note")
    table = markdown(made, {"cores": "2"})
    assert cells(table, "warm 100 MiB") == [
        "warm 100 MiB blob, 1 client, GB/s",
        "3.00 (2.80..3.20)",
        "2.00",
        "-",
        "3.00 static",
        "1.00 (0.93..1.07)",
        "at least 0.95 of nginx static",
        "yes",
    ]
    assert "herd" not in table
    assert table.endswith("\ncores 2.\n\n- a note\n")


def test_table_shows_two_targets_in_one_line() -> None:
    """Each target has its own ratio and verdict, in order."""
    made = results("cold-gib-wall", mirror=[1.2], distribution=[2.4], proxy=[0.6])
    assert cells(markdown(made, {}), "cold 1 GiB")[5:] == [
        "0.5; 2.00",
        "at most 0.7 of distribution; at most 1.5 of nginx proxy",
        "yes; no",
    ]


def test_absolute_target_needs_no_rival() -> None:
    """The mirror's own figure is judged; without it there is no verdict."""
    assert cells(markdown(results("slow-readers-probe", mirror=[51]), {}), "same")[5:] == [
        "-",
        "at most 50 ms",
        "no",
    ]
    assert cells(markdown(results("slow-readers-probe", static=[3]), {}), "same")[5:] == [
        "-",
        "at most 50 ms",
        "-",
    ]


def test_document_has_every_round() -> None:
    """The document has the table's contents as JSON."""
    made = results("small-fills", mirror=[2600, 2400, 2550], distribution=[200])
    found = document(made, {"cores": "2"})
    (row,) = found["rows"]
    assert found["about"] == {"cores": "2"}
    assert row["contestants"][MIRROR] == {
        "rounds": [2600, 2400, 2550],
        "median": 2550,
        "min": 2400,
        "max": 2600,
    }
    assert row["contestants"][DISTRIBUTION]["median"] == 200
    assert row["targets"] == [
        {
            "to_reach": "at least 2,500",
            "found": {"median": 2550, "min": 2400, "max": 2600},
            "reached": True,
        }
    ]


def test_rows_have_unique_keys() -> None:
    """No two rows have one key."""
    keys = [row.key for row in ROWS]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("", 200, range(10)),
        ("bytes=2-4", 206, range(2, 5)),
        ("bytes=2-", 206, range(2, 10)),
        ("bytes=8-20", 206, range(8, 10)),
        ("bytes=10-", 416, range(0)),
    ],
)
def test_throttled_cdn_serves_ranges(tmp_path: Path, asked: str, status: int, span: range) -> None:
    """A request gets one range of a file, clamped, or else the whole file."""
    (tmp_path / "blob").write_bytes(b"0123456789")
    answer = Cdn(tmp_path)(Request("GET", "/blob", {"range": asked} if asked else {}))
    assert (answer.status, answer.span) == (status, span)


def test_throttled_registry_challenges_and_redirects(tmp_path: Path) -> None:
    """The registry wants a token first, and then redirects to the blob."""
    registry = Registry(tmp_path, "here:1", "there:2")
    path = "/v2/library/a/blobs/sha256:0"
    challenge = registry(Request("GET", path, {}))
    assert challenge.status == 401
    assert challenge.headers["WWW-Authenticate"].endswith('scope="repository:library/a:pull"')
    answer = registry(Request("GET", path, {"authorization": "Bearer bench"}))
    assert (answer.status, answer.headers["Location"]) == (307, f"http://there:2{path}")


def test_throttled_line_breaks_transfers(tmp_path: Path) -> None:
    """After each `fault_every` bytes a transfer breaks off, or falls silent until the client leaves."""
    site = Site(tmp_path / "site", quick=True)
    site.root.mkdir()
    (site.root / "blob").write_bytes(bytes(100_000))
    with slow_origin(site, tmp_path / "origin", Line(rate=1e6, rtt=0, fault_every=60_000)) as origin:
        for enough in (b"", b"x"):
            host, _, port = origin.cdn.partition(":")
            with socket.create_connection((host, int(port))) as client, client.makefile("rb") as answer:
                client.sendall(b"GET /blob HTTP/1.1\r\n\r\n")
                head = b"".join(iter(answer.readline, b"\r\n"))
                client.sendall(enough)
                body = answer.read()
            assert b"Content-Length: 100000" in head
            assert 0 < len(body) < 100_000


def test_report_has_columns_for_another_checkout() -> None:
    """The columns have its figures and the ratio within each round, or dashes for rows without them."""
    made = results("warm-blob-1", mirror=[3.0, 1.0], base=[2.0, 2.0])
    made.add("cold-gib-wall", MIRROR, 1, 5.0)
    table = markdown(made, {})
    assert cells(table, "work")[-2:] == ["base", "ratio to base"]
    assert cells(table, "warm 100 MiB")[-2:] == ["2.00", "1.00 (0.5..1.50)"]
    assert cells(table, "cold 1 GiB")[-2:] == ["-", "-"]
    assert "base" not in markdown(results("warm-blob-1", mirror=[3.0]), {})


def test_report_has_a_column_for_distribution_3() -> None:
    """The column stands behind that of distribution 2.8, if distribution 3 took part."""
    made = results("cold-gib-wall", mirror=[2.0], distribution=[4.0])
    made.add("cold-gib-wall", DISTRIBUTION_3, 1, 3.0)
    made.add("herd-last", MIRROR, 1, 5.0)
    table = markdown(made, {})
    assert cells(table, "work")[2:4] == ["distribution 2.8", "distribution 3.1"]
    assert cells(table, "cold 1 GiB")[1:4] == ["2.00", "4.00", "3.00"]
    assert cells(table, "same, last client")[3] == "-"
    assert "distribution 3.1" not in markdown(results("cold-gib-wall", mirror=[2.0]), {})
