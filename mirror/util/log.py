"""Logs: human lines on a terminal, JSON otherwise, and no secret in either."""

import logging
import secrets
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import cache, lru_cache
from typing import Any, Protocol, TextIO
from urllib.parse import urlsplit, urlunsplit

# Never printed, whatever was passed by mistake.
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

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        if self._bound is None:
            _configure_pending()
            self._bound = _structlog().get_logger(component=self._component)
        return getattr(self._bound, method)


def get_logger(name: str) -> Logger:
    """Return the logger of the module `name`."""
    return Logger(name.removeprefix("mirror."))


def bind_context(**values: object) -> None:
    """Add these keys and values to every later line of this process."""
    _structlog().contextvars.bind_contextvars(**values)


_pending: list[Callable[[], None]] = []


def configure_later(settings: LogOptions, stream: TextIO = sys.stderr) -> None:
    """Configure before the first line is logged: most commands log none."""
    _pending[:] = [lambda: configure(settings, stream)]


def _configure_pending() -> None:
    while _pending:
        _pending.pop()()


def configure(settings: LogOptions, stream: TextIO = sys.stderr) -> None:
    """Send everything, the libraries' own logging included, to `stream`."""
    structlog = _structlog()
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    human = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        add_timestamp,
        mask_secrets,
    ]
    last: list[Any] = (
        [
            # Plain: the pretty one prints local variables, and with them whatever secret they hold.
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
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


def timestamp(now: float) -> str:
    """`now`, in seconds since the epoch, as log lines have it: 2026-01-31T23:59:59.000000Z."""
    second = int(now)
    return f"{_to_the_second(second)}.{int((now - second) * 1e6):06d}Z"


@lru_cache(2)
def _to_the_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def add_timestamp(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: when it happened, unless the event says so itself."""
    event.setdefault("timestamp", timestamp(time.time()))
    return event


class LineFiltered(Exception):
    """The level, or a processor, keeps such a line out of the log."""


class LineTemplate:
    """A line that is written again and again: rendered once, like any other, then only filled in.

    `fields` are those of one such line; `varying` names those of them (strings without anything to escape,
    and numbers) that differ from line to line; the last one is `timestamp`.
    """

    def __init__(self, name: str, event: str, fields: Mapping[str, object], varying: Sequence[str]) -> None:
        """Raises LineFiltered when such a line would not be written."""
        marks = {key: _mark(fields.get(key, "")) for key in varying}
        line = _rendered({"component": name, **fields, **marks, "event": event})
        text = str(line).replace("%", "%%")
        found = {text.find(str(mark)): index for index, mark in enumerate(marks.values())}
        for mark in marks.values():
            text = text.replace(str(mark), "%s")
        self._text = text
        # In JSON they come in the order of `fields`; on a terminal the time comes first.
        self._order = [found[place] for place in sorted(found) if place >= 0]
        self._in_order = self._order == list(range(len(varying)))

    def fill(self, values: tuple[object, ...]) -> str:
        """The line with these values of the varying fields."""
        return self._text % (values if self._in_order else tuple(values[index] for index in self._order))


def _rendered(event: dict[str, object]) -> object:
    structlog = _structlog()
    if not structlog.get_logger().is_enabled_for(logging.INFO):
        raise LineFiltered
    line: Any = event
    try:
        for processor in structlog.get_config()["processors"]:
            line = processor(None, "info", line)
    except structlog.DropEvent as dropped:
        raise LineFiltered from dropped
    return line


def _mark(value: object) -> object:
    """Something of the type of `value` that is in no line by chance, or because somebody guessed it."""
    return secrets.token_hex(16) if isinstance(value, str) else 10**17 + secrets.randbelow(10**18)


def write_lines(lines: Sequence[str]) -> None:
    """Write finished lines, many at a time, because each write is a system call."""
    if lines:
        logger = _structlog().get_config()["logger_factory"]()
        for together in _portions(lines):
            logger.msg(together)


def _portions(lines: Sequence[str]) -> Iterator[str]:
    """Lines joined while a pipe takes them in one piece: between those of other workers, not into them."""
    portion: list[str] = []
    length = 0
    for line in lines:
        if portion and length + len(line) + 1 > select.PIPE_BUF:
            yield "\n".join(portion)
            portion, length = [], 0
        portion.append(line)
        length += len(line) + 1
    if portion:
        yield "\n".join(portion)


def mask_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: values of keys that sound like secrets are not printed."""
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "***"
    return event


def redact_url(url: str) -> str:
    """The URL without user, password and the values of its query (a signed URL is a credential)."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = (
        "&".join(f"{pair.partition('=')[0]}=***" for pair in parts.query.split("&")) if parts.query else ""
    )
    return urlunsplit((parts.scheme, host, parts.path, query, ""))
