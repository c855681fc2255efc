"""The log on a terminal: one short line per event, for an operator who watches.

    08:06:35 GET docker.io/library/busybox:1.37 hit 517 B 12 ms 127.0.0.1
    08:06:36 GET docker.io/library/nothing:1 404 7 ms 127.0.0.1: docker.io: registry-1.docker.io answered 404
    08:06:40 warning: housekeeping failed: the disk is full

Times are local. Errors are red, warnings and stale responses yellow, where the stream has colors. The JSON
format has all keys, whole digests and times in UTC; a terminal line leaves out ids and times of no use there.
"""

import re
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from mirror.util.units import duration, size

DIGEST = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b|\b(sha512:[0-9a-f]{12})[0-9a-f]{116}\b")

RED, YELLOW, DIM, RESET = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
COLORS = {"critical": RED, "error": RED, "warning": YELLOW, "debug": DIM}

# Keys that a terminal line has in another place, or not at all.
PLACED = frozenset({"event", "level", "timestamp", "component", "reason", "exception"})


class TerminalRenderer:
    """A structlog processor, the last one: renders an event as a line of text.

    `shown` has, by key, how a line shows values that are not shown as they are.
    """

    shown: Mapping[str, Callable[[Any], str]]

    def __init__(self, *, colors: bool) -> None:
        self._colors = colors
        self.shown = {"timestamp": clock_time, "total_ms": _or_text(duration), "bytes": _or_text(size)}

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        access = event.get("component") == "access" and event["event"] == "request"
        text, color = self._access(event) if access else self._other(event)
        line = f"{clock_time(event.get('timestamp', ''))} {DIGEST.sub(_short_digest, printable(text))}"
        if exception := event.get("exception"):
            line = "\n".join([line, *map(printable, str(exception).split("\n"))])
        return f"{color}{line}{RESET}" if color and self._colors else line

    def _access(self, event: Mapping[str, Any]) -> tuple[str, str]:
        """Return the text of an access line, and its color."""
        failed = event["outcome"] == "error"
        words = [event["method"], _content_name(event)]
        if failed:
            words.append(str(event["status"]))
        else:
            words.append(event["outcome"])
            if event["status"] != 200:
                words.append(str(event["status"]))
            if event["bytes"]:
                words.append(self.shown["bytes"](event["bytes"]))
        words += [self.shown["total_ms"](event["total_ms"]), event["client"] or "-"]
        text = " ".join(words)
        note = event.get("note")
        if note:
            text = f"{text}: {note}"
        return text, RED if failed else YELLOW if note else ""

    def _other(self, event: Mapping[str, Any]) -> tuple[str, str]:
        """Return the text of any other line, and its color."""
        level = event.get("level", "info")
        text = str(event["event"]) if level == "info" else f"{level}: {event['event']}"
        if reason := event.get("reason"):
            text = f"{text}: {reason}"
        rest = [f"{key}={self._value(key, value)}" for key, value in event.items() if key not in PLACED]
        return " ".join([text, *rest]), COLORS.get(level, "")

    def _value(self, key: str, value: Any) -> str:
        show = self.shown.get(key)
        text = str(value) if show is None else show(value)
        return repr(text) if " " in text and show is None else text


def _content_name(event: Mapping[str, Any]) -> str:
    """Name what was asked for as `docker pull` does, and its kind where the name does not tell."""
    kind, upstream = event["kind"], event.get("upstream")
    if "path" in event:
        return str(event["path"])
    if "repository" not in event:
        return "/".join(each for each in (upstream, "v2/_catalog" if kind == "catalog" else "v2/") if each)
    name = f"{upstream}/{event['repository']}"
    if reference := event.get("reference"):
        name = f"{name}@{reference}" if ":" in reference else f"{name}:{reference}"
    return name if kind in ("manifest", "blob") else f"{name} {kind}"


def printable(text: str) -> str:
    """Escape control characters: clients and upstreams must not command the operator's terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def clock_time(timestamp: str) -> str:
    """Turn a log line's timestamp (UTC) into local HH:MM:SS; anything else stays."""
    if len(timestamp) == 27 and timestamp.endswith("Z"):
        return _local_time(timestamp[:19])
    return timestamp


@lru_cache(2)
def _local_time(second: str) -> str:
    return datetime.fromisoformat(f"{second}+00:00").astimezone().strftime("%H:%M:%S")


def _or_text(show: Callable[[float], str]) -> Callable[[Any], str]:
    """Let text pass: the placeholder of a line that is filled in later."""
    return lambda value: value if isinstance(value, str) else show(value)


def _short_digest(digest: re.Match[str]) -> str:
    return digest[1] or digest[2]
