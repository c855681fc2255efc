"""Terminal lines: short, readable, colored by severity, and safe to print."""

import io
import re
from typing import Any

import pytest

from mirror.config.schema import LogSettings
from mirror.util.log import LineTemplate, configure, get_logger
from mirror.util.terminal_log import RED, RESET, YELLOW, clock_time, printable

pytestmark = pytest.mark.usefixtures("own_logging")

DIGEST = "sha256:" + "0123456789abcdef" * 4
TIME = r"\d\d:\d\d:\d\d"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def access(**changes: object) -> dict[str, Any]:
    """Return the fields of an access line, as `RequestRecord.fields` has them."""
    fields: dict[str, Any] = {
        "id": "2c5f7a0000000001",
        "client": "127.0.0.1",
        "method": "GET",
        "kind": "manifest",
        "status": 200,
        "outcome": "hit",
        "bytes": 517,
        "first_byte_ms": 11.5,
        "total_ms": 12.31,
        "upstream": "docker.io",
        "repository": "library/busybox",
        "reference": "1.37",
        "digest": DIGEST,
    }
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


def written(*, colors: bool = False, level: str = "info", event: str = "", **fields: object) -> str:
    """Log one line to a terminal, an access line unless `event` says otherwise, and return its text."""
    stream = Terminal() if colors else io.StringIO()
    configure(LogSettings.model_validate({"format": "console", "level": "debug"}), stream)
    logger = get_logger("web.app" if event else "access")
    getattr(logger, level)(event or "request", **fields)
    return stream.getvalue().removesuffix("\n")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "GET docker.io/library/busybox:1.37 hit 517 B 12 ms 127.0.0.1"),
        (
            {"method": "HEAD", "bytes": 0, "total_ms": 0.31},
            "HEAD docker.io/library/busybox:1.37 hit 0.3 ms 127.0.0.1",
        ),
        (
            {"kind": "blob", "reference": DIGEST, "outcome": "miss", "bytes": 211_000_000, "total_ms": 5250},
            "GET docker.io/library/busybox@sha256:0123456789ab miss 201 MiB 5.2 s 127.0.0.1",
        ),
        ({"status": 206, "bytes": 10}, "GET docker.io/library/busybox:1.37 hit 206 10 B 12 ms 127.0.0.1"),
        ({"kind": "tags", "reference": None}, "GET docker.io/library/busybox tags hit 517 B 12 ms 127.0.0.1"),
        (
            {"kind": "base", "repository": None, "reference": None, "bytes": 2},
            "GET docker.io/v2/ hit 2 B 12 ms 127.0.0.1",
        ),
        (
            {"kind": "base", "upstream": None, "repository": None, "reference": None, "bytes": 2},
            "GET v2/ hit 2 B 12 ms 127.0.0.1",
        ),
        (
            {"kind": "other", "path": "/v1/_ping", "outcome": "error", "status": 404, "note": "not served"},
            "GET /v1/_ping 404 12 ms 127.0.0.1: not served",
        ),
        (
            {"outcome": "error", "status": 502, "note": "docker.io: Connection refused"},
            "GET docker.io/library/busybox:1.37 502 12 ms 127.0.0.1: docker.io: Connection refused",
        ),
        ({"client": ""}, "GET docker.io/library/busybox:1.37 hit 517 B 12 ms -"),
    ],
)
def test_access_line_is_short(changes: dict[str, object], line: str) -> None:
    """The line has the time, content, outcome, bytes and duration, without key names."""
    assert re.sub(f"^{TIME} ", "", written(**access(**changes))) == line


def test_access_line_of_an_error_is_red_and_of_a_stale_response_yellow() -> None:
    """A hit has no color; a stream that is no terminal has none either."""
    error = access(outcome="error", status=404, note="no such tag")
    assert re.fullmatch(
        rf"{re.escape(RED)}{TIME} GET .* no such tag{re.escape(RESET)}", written(colors=True, **error)
    )
    stale = access(outcome="stale", note="not confirmed: docker.io: Connection refused")
    assert written(colors=True, **stale).startswith(YELLOW)
    assert "\x1b" not in written(colors=True, **access())
    assert "\x1b" not in written(**error)


def test_other_lines_have_no_padding_and_short_digests() -> None:
    """A warning begins with its level, then the event, the reason, and keys with their values."""
    line = written(level="warning", event="housekeeping failed", reason="the disk is full", digest=DIGEST)
    assert re.fullmatch(
        rf"{TIME} warning: housekeeping failed: the disk is full digest=sha256:0123456789ab", line
    )
    line = written(event="evicted to make room", blobs=2, bytes=1_048_576, path="/a b")
    assert re.fullmatch(rf"{TIME} evicted to make room blobs=2 bytes=1 MiB path='/a b'", line)


def test_exception_is_printed_below_its_line_without_variables() -> None:
    """The trace is plain: values of variables may be secrets."""
    password_in_a_variable = "hunter2"
    stream = Terminal()
    configure(LogSettings(), stream)
    try:
        raise ValueError("wrong")
    except ValueError:
        get_logger("x").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert re.fullmatch(rf"{re.escape(RED)}{TIME} error: failed", first)
    assert "ValueError: wrong" in rest[-1]
    assert password_in_a_variable not in stream.getvalue()


def test_control_characters_are_escaped() -> None:
    """A path or an upstream's message cannot move the cursor or begin a line of its own."""
    line = written(**access(outcome="error", status=404, note="a\x1b[2Jb\nc\u202ed"))
    assert line.endswith(r": a\x1b[2Jb\nc\u202ed")
    assert printable("näme") == "näme"


def test_line_template_makes_the_same_terminal_line() -> None:
    """A template that is filled in looks like a line that is rendered."""
    stream = Terminal()
    configure(LogSettings(), stream)
    varying = ("id", "client", "first_byte_ms", "total_ms", "timestamp")
    template = LineTemplate("access", "request", access(), varying)
    now = "2026-11-28T08:06:35.123456Z"
    get_logger("access").info("request", **access(client="10.0.0.9", total_ms=0.06), timestamp=now)
    assert template.fill(("1", "10.0.0.9", 0.05, 0.06, now)) == stream.getvalue().rstrip("\n")


def test_clock_time_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator compares the line with his watch, not with UTC; a text that is no timestamp stays."""
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert clock_time("2026-01-31T23:59:58.000000Z") == "08:59:58"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert clock_time("now") == "now"
