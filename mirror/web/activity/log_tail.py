"""The end of the log of one worker, in memory, for the pages: the last lines, secrets masked."""

import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from mirror.util.callbacks import ignore
from mirror.util.log import observe_lines
from mirror.web.activity.entries import LogLine, LogQuestion

# Lines that are kept, and the longest text of each field: about a megabyte.
MOST_LINES, TEXT_CHARACTERS, MOST_FIELDS = 1000, 300, 20

# Levels from the least grave to the gravest.
LEVELS = ("debug", "info", "warning", "error", "critical")

# Fields that have a place of their own, or none.
APART = (
    "timestamp",
    "level",
    "component",
    "event",
    "exc_info",
    "stack_info",
    "worker",
    "_record",
    "_from_structlog",
)


class LogTail:
    """The last lines of this process; `worker` is its number. Nothing is kept before `open`."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._lines: deque[LogLine] = deque(maxlen=MOST_LINES)
        self._end: Callable[[], object] = ignore

    def open(self) -> None:
        """Begin to keep lines."""
        self._end = observe_lines(self._add)

    def close(self) -> None:
        """Keep no further lines. May be called again."""
        self._end()
        self._end = ignore

    def lines(self, question: LogQuestion) -> list[LogLine]:
        """Return the last lines that a question is about, the oldest first."""
        found: list[LogLine] = []
        for each in reversed(list(self._lines)):  # a copy: other threads log
            if len(found) >= question.limit:
                break
            if _is_wanted(each, question):
                found.append(each)
        return found[::-1]

    def _add(self, fields: Mapping[str, Any]) -> None:
        texts = {key: _text(value) for key, value in fields.items() if key not in APART}
        if (raised := _raised(fields.get("exc_info"))) is not None:
            texts["exception"] = _text(f"{type(raised).__name__}: {raised}")
        self._lines.append(
            LogLine(
                moment=_text(fields.get("timestamp", "")),
                worker=self._worker,
                level=_text(fields.get("level", "info")),
                component=_text(fields.get("component", "")),
                event=_text(fields.get("event", "")),
                fields=dict(list(texts.items())[:MOST_FIELDS]),
            )
        )


def _is_wanted(line: LogLine, question: LogQuestion) -> bool:
    if _rank(line.level) < _rank(question.level) or question.component not in line.component:
        return False
    wanted = question.text.lower()
    if not wanted or wanted in line.event.lower():
        return True
    return any(wanted in f"{key}={value}".lower() for key, value in line.fields.items())


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else 0


def _raised(given: object) -> BaseException | None:
    """Return the exception that a line is about, as the logging of Python passes it."""
    if given is True:
        return sys.exc_info()[1]
    if isinstance(given, tuple):
        return given[1] if len(given) > 1 and isinstance(given[1], BaseException) else None
    return given if isinstance(given, BaseException) else None


def _text(value: object) -> str:
    """Return a value as text, cut, and without halves of characters."""
    return str(value)[:TEXT_CHARACTERS].encode("utf-8", "replace").decode()
