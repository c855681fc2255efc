"""Logging: short lines on a terminal, JSON otherwise, and secrets in neither."""

import logging
import os
import secrets
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, Protocol, TextIO, cast
from urllib.parse import urlsplit, urlunsplit

from mirror.util.log_writer import DirectLog, LogStream, ThreadedLog, log_stream
from mirror.util.terminal_log import TerminalRenderer

# Values of keys that contain one of these words are never printed.
SECRET_WORDS = ("authorization", "password", "token", "secret", "cookie")


class LogOptions(Protocol):
    """The `log` section of the configuration, as far as `configure` reads it."""

    @property
    def level(self) -> str: ...
    @property
    def format(self) -> str: ...


@cache
def _structlog() -> Any:
    """Import structlog at the first use, and without rich.

    A command that logs nothing does without structlog (60 ms). structlog.dev imports rich, if rich is
    installed, for tracebacks that are never printed here: another 60 ms, and 6 MB in each server.
    """
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's mark for "not installed"
    try:
        import structlog

        return structlog
    finally:
        if hidden:
            del sys.modules["rich"]


class Logger:
    """A structlog logger that is created by its first line: `log.info("event", key=value)`."""

    def __init__(self, component: str) -> None:
        self._component = component
        self._bound: Any = None

    def debug(self, event: str, **values: object) -> None:
        """Log for an investigation. Costs 0.2 µs when the level is higher."""
        if debug_enabled():
            self.__getattr__("debug")(event, **values)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        if self._bound is None:
            _configure_pending()
            self._bound = _structlog().get_logger(component=self._component)
        return getattr(self._bound, method)


# Functions that are called with each line of the log, before it is rendered (`observe_lines`).
_observers: list[Callable[[Mapping[str, Any]], object]] = []

_debug = False


def debug_enabled() -> bool:
    """Return whether debug lines are written; False until `configure` says otherwise."""
    return _debug


def set_debug(*, enabled: bool) -> None:
    global _debug  # noqa: PLW0603  # of this process, as the rest of its logging
    _debug = enabled


def get_logger(name: str) -> Logger:
    """Return the logger of the module `name`."""
    return Logger(name.removeprefix("mirror."))


def bind_context(**values: object) -> None:
    """Add these keys and values to every later line of this process."""
    _structlog().contextvars.bind_contextvars(**values)


def observe_lines(observer: Callable[[Mapping[str, Any]], object]) -> Callable[[], None]:
    """Call `observer` with the fields of each later line, secrets masked; return what ends that.

    It is called in the thread that logs, and must not log. Responses from memory, which are rendered by a
    `LineTemplate`, are not among the lines.
    """
    _observers.append(observer)
    return lambda: _observers.remove(observer)


def _tell_observers(
    logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Tell the observers of an event; of no sample for a template, which has no logger."""
    if logger is not None:
        for each in _observers:
            each(event)
    return event


_pending: list[Callable[[], None]] = []


def configure_later(settings: LogOptions, stream: TextIO = sys.stderr) -> None:
    """Configure before the first line is logged: most commands log none."""
    _pending[:] = [lambda: configure(settings, stream)]
    set_debug(enabled=settings.level == "debug")


def _configure_pending() -> None:
    while _pending:
        _pending.pop()()


def configure(settings: LogOptions, stream: TextIO = sys.stderr) -> None:
    """Send all lines, those of libraries included, to `stream`."""
    structlog = _structlog()
    _pending.clear()
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    set_debug(enabled=level <= logging.DEBUG)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        add_timestamp,
        mask_secrets,
        _tell_observers,
    ]
    # A plain traceback: one with local variables would print the secrets in them.
    last: list[Any] = [structlog.processors.format_exc_info, _renderer(settings.format, stream)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    if isinstance(stream, LogStream):
        stream.describe = _lost_lines_notice


@contextmanager
def server_log(settings: LogOptions, *, threaded: bool) -> Iterator[None]:
    """Replace standard error, and with it the log, by a stream that is never waited for and never fails.

    `threaded`: with a writer thread; not in a process that forks.
    """
    before, descriptor = sys.stderr, _standard_error()
    stream = ThreadedLog(descriptor) if threaded else DirectLog(descriptor)
    with log_stream(stream):
        sys.stderr = cast(TextIO, stream)
        try:
            # A process that forks logs next to nothing, and is smaller without what a line needs.
            (configure if threaded else configure_later)(settings, sys.stderr)
            yield
        finally:
            sys.stderr = before


def _standard_error() -> int:
    """Return the descriptor of standard error; when that is closed, one that swallows everything."""
    if sys.__stderr__ is None:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    return sys.__stderr__.fileno()


def _lost_lines_notice(lines: int) -> str:
    """Return the line about lines that were dropped; "" when the level keeps such a line out."""
    event = "lines of the log are missing here: they could not be written"
    fields: dict[str, object] = {"component": "log", "event": event, "lines": lines}
    try:
        return f"{_rendered(fields, 'warning')}\n"
    except LineFiltered:
        return ""


def _renderer(format_: str, stream: TextIO) -> Any:
    if format_ == "console" or (format_ == "auto" and stream.isatty()):
        return TerminalRenderer(colors=stream.isatty())
    return _structlog().processors.JSONRenderer()


def timestamp(now: float) -> str:
    """Format `now`, in seconds since the epoch, as in log lines: 2026-01-31T23:59:59.000000Z."""
    second = int(now)
    return f"{_to_the_second(second)}.{int((now - second) * 1e6):06d}Z"


@lru_cache(2)
def _to_the_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def add_timestamp(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the time to an event that has none (a structlog processor)."""
    event.setdefault("timestamp", timestamp(time.time()))
    return event


class LineFiltered(Exception):
    """The level, or a processor, keeps such a line out of the log."""


class LineTemplate:
    """A line that is written many times: rendered once, like any other line, and then only filled in.

    `fields` are those of one such line. `varying` names the fields that differ from line to line: numbers,
    and strings without a character to escape; the last one is `timestamp`.
    """

    def __init__(self, name: str, event: str, fields: Mapping[str, object], varying: Sequence[str]) -> None:
        """Raises LineFiltered when such a line would not be written."""
        shown = _shown_by_renderer()
        marks = {key: _mark("" if shown else fields.get(key, "")) for key in varying}
        text = str(_rendered({"component": name, **fields, **marks, "event": event})).replace("%", "%%")
        found = {text.find(str(mark)): index for index, mark in enumerate(marks.values())}
        for mark in marks.values():
            text = text.replace(str(mark), "%s")
        self._text = text
        # JSON has the values in the order of `fields`; a terminal has the time first, and not all of them.
        order = [found[position] for position in sorted(found) if position >= 0]
        self._parts = [(index, shown.get(varying[index], _unchanged)) for index in order]
        # Whether values are put into the text as they are, in their order: numbers may be texts then.
        self.in_order = not shown and order == list(range(len(varying)))

    def fill(self, values: tuple[object, ...]) -> str:
        """Return the line with these values of the varying fields."""
        if self.in_order:
            return self._text % values
        return self._text % tuple([show(values[index]) for index, show in self._parts])


def _shown_by_renderer() -> Mapping[str, Callable[[Any], object]]:
    """Return how the configured renderer shows values, by key; empty when it shows them as they are."""
    shown: Mapping[str, Callable[[Any], object]] = getattr(
        _structlog().get_config()["processors"][-1], "shown", {}
    )
    return shown


def _unchanged(value: object) -> object:
    return value


def _rendered(event: dict[str, object], level: str = "info") -> object:
    structlog = _structlog()
    if not structlog.get_logger().is_enabled_for(logging.getLevelNamesMapping()[level.upper()]):
        raise LineFiltered
    line: Any = event
    try:
        for processor in structlog.get_config()["processors"]:
            line = processor(None, level, line)
    except structlog.DropEvent as dropped:
        raise LineFiltered from dropped
    return line


def _mark(value: object) -> object:
    """Return a placeholder of the type of `value` that is in no line, neither by chance nor by a guess."""
    return secrets.token_hex(16) if isinstance(value, str) else 10**17 + secrets.randbelow(10**18)


def write_lines(lines: Sequence[str]) -> None:
    """Write finished lines, many at a time, because each write is a system call."""
    if lines:
        logger = _structlog().get_config()["logger_factory"]()
        for joined in _join_lines(lines):
            logger.msg(joined)


def _join_lines(lines: Sequence[str]) -> Iterator[str]:
    """Join lines up to what a pipe takes atomically, so that those of several workers do not mix."""
    batch: list[str] = []
    length = 0
    for line in lines:
        if batch and length + len(line) + 1 > select.PIPE_BUF:
            yield "\n".join(batch)
            batch, length = [], 0
        batch.append(line)
        length += len(line) + 1
    if batch:
        yield "\n".join(batch)


def mask_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask the values of keys that sound like secrets (a structlog processor)."""
    for key in event:
        if _sounds_secret(key):
            event[key] = "***"
    return event


@lru_cache(512)
def _sounds_secret(key: str) -> bool:
    return any(word in key.lower() for word in SECRET_WORDS)


def redact_url(url: str) -> str:
    """Remove user, password and query values from a URL (a signed URL is a credential)."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = (
        "&".join(f"{pair.partition('=')[0]}=***" for pair in parts.query.split("&")) if parts.query else ""
    )
    return urlunsplit((parts.scheme, host, parts.path, query, ""))
