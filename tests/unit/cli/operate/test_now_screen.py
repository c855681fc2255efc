"""The screen of `top` for terminals of any size."""

import io
import time

import pytest
from rich.console import Console

from mirror.cli.operate.now_screen import screen, shares, spark
from mirror.cli.operate.snapshot import (
    LineRate,
    NowActivity,
    NowDisk,
    NowTrouble,
    Snapshot,
    VisitorFacts,
)
from mirror.web.activity.entries import (
    AccountState,
    EndedRequest,
    RunningDownload,
    RunningRequest,
    SourceState,
    UpstreamState,
)

DIGEST = "sha256:" + "ab" * 32


def request(number: int) -> RunningRequest:
    return RunningRequest(
        id=str(number),
        worker=0,
        client=f"10.0.0.{number}",
        identity=["user:alice"],
        kind="blob",
        upstream="docker.io",
        repository=f"library/image{number}",
        reference=None,
        digest=DIGEST,
        outcome="join",
        why="the blob grows",
        began=time.time() - 3,
        sent=5 << 20,
        length=10 << 20,
        rate=1 << 20,
    )


def ended(number: int, name: str = "library/image") -> EndedRequest:
    return EndedRequest(
        id=str(number),
        client="10.0.0.9",
        identity=[],
        kind="manifest",
        upstream="docker.io",
        repository=name,
        reference="3.20",
        outcome="error",
        status=404,
        why="registry-1.docker.io answered 404",
        ended=time.time(),
        seconds=0.012,
        bytes=517,
        count=2,
    )


def snapshot(requests: int = 40, recent: int = 40, *, name: str = "library/image") -> Snapshot:
    account = AccountState(
        account="anonymous", refused=False, budget="low", limit=100, remaining=19, window=21600, source=None
    )
    source = SourceState(
        source="docker.io", breaker="open", latency=0.08, speed=1e7, connections=4, accounts=[account]
    )
    download = RunningDownload(
        worker=0,
        upstream="docker.io",
        repository="library/image1",
        digest=DIGEST,
        received=5 << 20,
        size=10 << 20,
        rate=1 << 20,
        clients=40,
        queued=False,
        prefetch=False,
        sources={"cdn.test": 3, "slow.test": 1},
        rates={"cdn.test": 3 << 20, "ended.test": 5},
    )
    return Snapshot(
        about=VisitorFacts("1.0", "127.0.0.1", True),
        activity=NowActivity(
            workers=2,
            requests=[request(each) for each in range(requests)],
            downloads=[download] * 5,
            recent=[ended(each, name) for each in range(recent)],
            traffic=[LineRate(each, each * 1e6, each * 2e6) for each in range(60)],
            upstreams=[UpstreamState(name="docker.io", offline=False, sources=[source])],
        ),
        disk=NowDisk(cached=5 << 30, blobs=120, downloads=1 << 20, allowed=10 << 30, free=30 << 30),
        troubles=[NowTrouble("disk", "it is full", "free some room")],
    )


def shown(found: Snapshot, width: int, height: int | None, note: str = "") -> list[str]:
    text = io.StringIO()
    console = Console(file=text, width=width, height=height or 25)
    console.print(screen(found, "http://127.0.0.1:5002", width, height, note))
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("height", [6, 10, 24, 60])
def test_top_screen_fits_its_terminal(width: int, height: int) -> None:
    """No line is longer than the terminal is wide, and no more lines are there than fit."""
    lines = shown(snapshot(), width, height, "the mirror does not answer")
    assert max(map(len, lines)) <= width
    assert len(lines) <= height


def test_top_screen_of_a_wide_terminal_has_everything() -> None:
    """Client, image, hit or miss and why, progress, rate; downloads, upstreams, troubles."""
    text = "\n".join(shown(snapshot(), 200, 60))
    for each in (
        "10.0.0.1 user:alice",
        "docker.io/library/image1@abababababab",
        "join",
        "the blob grows",
        "5 MiB of 10 MiB 50%",
        "1 MiB/s",
        "40 requests",
        "5 downloads",
        "cdn.test x3 3 MiB/s, slow.test x1 0 B/s",
        "anonymous: 19 of 100",
        "open",
        "error 404 x2",
        "disk: it is full. free some room",
        "cache 5 GiB of 10 GiB in 120 blobs, 30 GiB free, 1 MiB of downloads",
        "█",
    ):
        assert each in text


def test_top_screen_of_a_narrow_terminal_has_the_image_and_the_outcome() -> None:
    """The most important columns stay."""
    text = "\n".join(shown(snapshot(), 50, 24))
    assert "docker.io/library" in text
    assert "join" in text
    assert "user:alice" not in text


def test_top_screen_commands_no_terminal() -> None:
    """Control characters of names are escaped."""
    assert "\x1b" not in "\n".join(shown(snapshot(0, 1, name="x\x1b[2Jy[bold]"), 120, None))
    assert "x\\x1b[2Jy[bold]" in "\n".join(shown(snapshot(0, 1, name="x\x1b[2Jy[bold]"), 120, None))


@pytest.mark.parametrize(
    ("wanted", "room", "found"),
    [
        ([10, 10], None, [10, 10]),
        ([10, 10], 25, [10, 10]),
        ([30, 30], 20, [15, 5]),
        ([3, 30], 20, [3, 17]),
        ([30, 30], 5, [5, 0]),
        ([30, 30], 2, [0, 0]),
        ([], 10, []),
    ],
)
def test_top_lists_share_the_lines(wanted: list[int], room: int | None, found: list[int]) -> None:
    """A list that needs less leaves the rest to the others; a first one comes first."""
    assert shares(wanted, [3, 1][: len(wanted)], room) == found


def test_top_chart() -> None:
    """The largest rate is the highest bar; nothing is an empty one."""
    assert spark([0, 1, 50, 100]) == " ▁▄█"
    assert spark([0, 0]) == "  "
    assert spark([]) == ""
