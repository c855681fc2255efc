"""Progress of long commands: bars on a terminal, a line now and then without one, or JSON for programs.

    with shown(images=3, as_json=as_json) as view:
        for progress in operation:
            view.update(progress)
        view.done(blobs=12)

Results of images go to standard output, everything else that people read to standard error. With `--json`
standard output has one object a line, of these events, and standard error nothing:

    progress   an image is further: bytes, items, and `all` for the whole operation
    image      the result of an image: "done", "present" or "failed" with a reason
    done       the end of the operation, with its totals and the facts of the command

Only commands that take long import this module; rich is imported on a terminal only.
"""

import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.cli.common import INTERRUPTED
from mirror.cli.output import json_line, say, tell
from mirror.util.progress.amounts import ImageProgress, ProgressAmount
from mirror.util.progress.totals import Progress, Totals
from mirror.util.terminal_log import printable
from mirror.util.units import size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

T = TypeVar("T")

# Interval between lines about the progress where there is no terminal, in seconds.
LINE_SECONDS = 10.0

# Interval between JSON events about the progress of one image, in seconds.
EVENT_SECONDS = 1.0

# The most bars on a terminal at a time, beside that of the whole operation.
MOST_BARS = 8

# Words for the results of images.
RESULT_WORDS = {"done": "done", "present": "already here", "failed": "failed"}


class ProgressView:
    """The progress of one operation as lines for people, where there is no terminal.

    `clock` returns seconds that only grow.
    """

    def __init__(self, images: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.progress = Progress(images)
        self._clock = clock
        self._next_line = clock() + LINE_SECONDS

    def update(self, image: ImageProgress) -> None:
        """Show that an image is further, or its result."""
        now = self._clock()
        self.progress.update(image, now)
        if image.ended:
            self._show_result(image)
        else:
            self._show_running(image, now)

    def tell(self, message: str) -> None:
        """Show a message for people meanwhile."""
        tell(message)

    def done(self, **facts: object) -> None:
        """Show the end; `facts` are for programs."""

    def close(self) -> None:
        """Leave the terminal as it was."""

    def _show_result(self, image: ImageProgress) -> None:
        say(result_line(image))

    def _show_running(self, _image: ImageProgress, now: float) -> None:
        if now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            tell(totals_line(self.progress.totals(now)))


class JSONView(ProgressView):
    """The progress as JSON events, one a line."""

    def __init__(self, images: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(images, clock)
        self._shown: dict[str, float] = {}

    def tell(self, message: str) -> None:
        """Show nothing: the events say it."""

    def done(self, **facts: object) -> None:
        totals = self.progress.totals(self._clock())
        json_line({"event": "done", **_totals_json(totals), **facts})

    def _show_result(self, image: ImageProgress) -> None:
        self._shown.pop(image.name, None)
        reason = {"reason": image.reason} if image.reason else {}
        json_line({"event": "image", **_image_json(image), "result": image.state, **reason})

    def _show_running(self, image: ImageProgress, now: float) -> None:
        if now - self._shown.get(image.name, -EVENT_SECONDS) < EVENT_SECONDS:
            return
        self._shown[image.name] = now
        whole = _totals_json(self.progress.totals(now))
        json_line({"event": "progress", **_image_json(image), "all": whole})


class TerminalView(ProgressView):
    """The progress as bars on the terminal of standard error: running images, and the whole operation."""

    def __init__(self, images: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__(images, clock)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[amount]}", markup=False),
        )
        # Standard output stays as it is: results may be piped to a program.
        self._bars: Bars = Progress(
            *columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False
        )
        self._tasks: dict[str, TaskID] = {}
        self._whole = self._bars.add_task("all", total=None, amount="")
        self._bars.start()

    def tell(self, message: str) -> None:
        self._print(message)

    def close(self) -> None:
        self._bars.stop()

    def _show_result(self, image: ImageProgress) -> None:
        if (task := self._tasks.pop(image.name, None)) is not None:
            self._bars.remove_task(task)
        if sys.stdout.isatty():
            self._print(result_line(image))
        else:
            say(result_line(image))
        self._show_whole(self._clock())

    def _show_running(self, image: ImageProgress, now: float) -> None:
        task = self._tasks.get(image.name)
        if task is None and len(self._tasks) < MOST_BARS:
            task = self._tasks[image.name] = self._bars.add_task(printable(image.name), total=None, amount="")
        if task is not None:
            self._bars.update(
                task, total=image.bytes.total, completed=image.bytes.done, amount=_of(image.bytes)
            )
        self._show_whole(now)

    def _show_whole(self, now: float) -> None:
        totals = self.progress.totals(now)
        self._bars.update(
            self._whole, total=totals.bytes.total, completed=totals.bytes.done, amount=totals_line(totals)
        )

    def _print(self, line: str) -> None:
        """Print a whole line above the bars, whatever the width of the terminal."""
        self._bars.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def shown(images: int | None, *, as_json: bool) -> Iterator[ProgressView]:
    """Show the progress of an operation on `images` images, None if their number is not known yet."""
    view: ProgressView
    if as_json:
        view = JSONView(images)
    else:
        view = TerminalView(images) if sys.stderr.isatty() else ProgressView(images)
    try:
        yield view
    finally:
        view.close()


def run_interruptible(operation: Coroutine[Any, Any, T], advice: str) -> T:
    """Run an operation in an event loop. Ctrl-C cancels it, and the command ends with 130 and `advice`.

    `advice`: a sentence that says how to go on.
    """
    import asyncio

    try:
        return asyncio.run(operation)
    except KeyboardInterrupt:
        tell(f"Interrupted. {advice}")
        raise SystemExit(INTERRUPTED) from None


def result_line(image: ImageProgress) -> str:
    """Return the result of an image as a line: `alpine:3.20: done, 3.4 MiB`."""
    line = f"{image.name}: {RESULT_WORDS[image.state]}"
    if image.state == "failed":
        return f"{line}: {image.reason}"
    return f"{line}, {size(image.bytes.done)}" if image.bytes.done else line


def totals_line(totals: Totals) -> str:
    """Return the progress of the whole operation as a line."""
    count = "?" if totals.images.total is None else totals.images.total
    parts = [f"{totals.images.done} of {count} images", _of(totals.bytes), f"{size(round(totals.rate))}/s"]
    if totals.failed:
        parts.append(f"{totals.failed} failed")
    if totals.seconds_left is not None:
        parts.append(f"{time_left(totals.seconds_left)} left")
    return ", ".join(parts)


def time_left(seconds: float) -> str:
    """Return a time for people who wait: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _of(amount: ProgressAmount) -> str:
    done = size(amount.done)
    return done if amount.total is None else f"{done} of {size(amount.total)}"


def _image_json(image: ImageProgress) -> dict[str, object]:
    return {"image": image.name, **_amounts_json(image)}


def _totals_json(totals: Totals) -> dict[str, object]:
    return {
        "images": totals.images.done,
        "images_total": totals.images.total,
        "failed": totals.failed,
        **_amounts_json(totals),
        "rate": round(totals.rate),
        "seconds_left": None if totals.seconds_left is None else round(totals.seconds_left),
    }


def _amounts_json(progress: ImageProgress | Totals) -> dict[str, object]:
    return {
        "bytes": progress.bytes.done,
        "bytes_total": progress.bytes.total,
        "items": progress.items.done,
        "items_total": progress.items.total,
    }
