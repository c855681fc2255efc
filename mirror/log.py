"""Logs: human lines on a terminal, JSON otherwise, and no secret in either."""

import logging
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit, urlunsplit

import structlog

if TYPE_CHECKING:
    from mirror.config import Log

# Never printed, whatever was passed by mistake.
SECRET_WORDS = ("authorization", "password", "token", "secret", "cookie")


def get_logger(name: str) -> Any:
    """A structlog logger: `log.info("event", key=value)`."""
    return structlog.get_logger(component=name.removeprefix("mirror."))


def configure(settings: "Log", stream: TextIO = sys.stderr) -> None:
    """Send everything, the libraries' own logging included, to `stream`."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    human = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
