"""Progress of commands: on a terminal, without one, as JSON; and Ctrl-C."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from mirror.cli.common import INTERRUPTED
from mirror.cli.progress import JSONView, ProgressView, time_left
from mirror.util.progress.amounts import ImageProgress, ProgressAmount
from tests.unit.cli.terminal import read_to_end

# Two images, one after another; the second one fails.
COMMAND = """
import sys
from mirror.cli.progress import shown
from mirror.util.progress.amounts import ProgressAmount, ImageProgress
with shown(2, as_json="--json" in sys.argv) as view:
    for done in range(0, 2049, 1024):
        view.update(ImageProgress("alpine:3.20", ProgressAmount(done, 2048), ProgressAmount(0, 2)))
    view.update(ImageProgress("alpine:3.20", ProgressAmount(2048, 2048), ProgressAmount(2, 2), "done"))
    view.tell("a message")
    view.update(ImageProgress("x\\x1b[2J:1", ProgressAmount(0, 10)))
    view.update(ImageProgress("x\\x1b[2J:1", ProgressAmount(0, 10), state="failed", reason="no such image"))
    view.done(blobs=2)
"""

# An operation that only Ctrl-C ends.
ENDLESS = """
import asyncio, sys
from mirror.cli.progress import run_interruptible

async def endless():
    try:
        print("begun", flush=True)
        await asyncio.Event().wait()
    finally:
        print("cleaned up", flush=True)

run_interruptible(endless(), "The same command goes on from there.")
"""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=True
    )


def test_progress_without_a_terminal() -> None:
    """Results only, and messages; control characters of a name are escaped."""
    done = run(COMMAND)
    assert done.stdout == "alpine:3.20: done, 2 KiB\nx\\x1b[2J:1: failed: no such image\n"
    assert done.stderr == "a message\n"


def test_progress_as_json() -> None:
    """One object a line, and nothing else."""
    done = run(COMMAND, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["event"] for each in events] == ["progress", "image", "progress", "image", "done"]
    assert done.stderr == ""
    assert (events[0]["image"], events[0]["bytes_total"], events[0]["all"]["images_total"]) == (
        "alpine:3.20",
        2048,
        2,
    )
    assert (events[1]["result"], events[1]["bytes"], "reason" in events[1]) == ("done", 2048, False)
    assert (events[3]["result"], events[3]["reason"]) == ("failed", "no such image")
    assert (events[4]["images"], events[4]["failed"], events[4]["blobs"]) == (2, 1, 2)


def test_progress_on_a_terminal() -> None:
    """Results stay above the bars; the last line is that of the whole operation."""
    main, terminal = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen([sys.executable, "-c", COMMAND], stdout=terminal, stderr=terminal, env=env):
        os.close(terminal)
        text = read_to_end(main).decode()
    os.close(main)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n").split("\n")
    for line in ("alpine:3.20: done, 2 KiB", "a message", "x\\x1b[2J:1: failed: no such image"):
        assert lines.count(line) == 1, text
    last = [line for line in lines if line.startswith("all ")][-1]
    assert "2 of 2 images, 2 KiB of 2 KiB" in last
    assert "1 failed" in last


def test_progress_results_are_piped_while_bars_are_shown() -> None:
    """Standard output is for programs, whatever standard error is."""
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, stderr=terminal, text=True
    ) as process:
        os.close(terminal)
        shown = read_to_end(main)
        assert process.stdout is not None
        assert process.stdout.read().startswith("alpine:3.20: done, 2 KiB\n")
    os.close(main)
    assert b"images" in shown


def test_progress_lines_come_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """A log of a long command stays short."""
    clock = Clock()
    view = ProgressView(1, clock)
    for second in range(31):
        clock.now = 100.0 + second
        view.update(ImageProgress("a", ProgressAmount(second * 2**20, 60 * 2**20)))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"0 of 1 images, {done} MiB of 60 MiB, 1 MiB/s, {60 - done} s left" for done in (10, 20, 30)
    ]


def test_progress_events_come_every_second(capsys: pytest.CaptureFixture[str]) -> None:
    """Each image has its own interval; its result comes at once."""
    clock = Clock()
    view = JSONView(2, clock)
    for tenth in range(21):
        clock.now = 100.0 + tenth / 10
        for name in "ab":
            view.update(ImageProgress(name, ProgressAmount(tenth, 100)))
    view.update(ImageProgress("a", ProgressAmount(100, 100), state="present"))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["event"], each["image"]) for each in events] == [
        *[("progress", "a"), ("progress", "b")] * 3,
        ("image", "a"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (7260, "2 h 1 min")]
)
def test_progress_time_left(seconds: float, text: str) -> None:
    """Two numbers at most."""
    assert time_left(seconds) == text


def test_progress_is_ended_by_ctrl_c() -> None:
    """The operation is cancelled and cleans up; status 130, and a sentence about how to go on."""
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == INTERRUPTED == 130
        assert process.stdout.read() == "cleaned up\n"
        assert process.stderr.read() == "Interrupted. The same command goes on from there.\n"


def test_progress_is_not_imported_by_serve() -> None:
    """`serve` pulls images, of which it notes amounts; it adds nothing up, and shows nothing."""
    program = (
        "import sys\n"
        "import mirror.cli.serve, mirror.server.run, mirror.service.service, mirror.web.serving.server\n"
        "shown = ('rich', 'mirror.cli.progress', 'mirror.util.progress.totals')\n"
        "print([each for each in sys.modules if each.startswith(shown)])"
    )
    assert run(program).stdout == "[]\n"
