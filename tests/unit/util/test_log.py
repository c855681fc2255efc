"""Logging: lines for people, JSON for machines, secrets in neither."""

import io
import json
import logging
import subprocess
import sys

import pytest
import structlog

from mirror.config.schema import LogSettings
from mirror.util.log import (
    LineFiltered,
    LineTemplate,
    bind_context,
    configure,
    debug_enabled,
    get_logger,
    redact_url,
    timestamp,
    write_lines,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


pytestmark = pytest.mark.usefixtures("own_logging")


def test_json_when_the_stream_is_no_terminal() -> None:
    """Each line is one object with time, level, event and component."""
    stream = io.StringIO()
    configure(LogSettings(), stream)
    get_logger("mirror.web").info("request", status=200)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["status"], line["level"], line["component"]) == (
        "request",
        200,
        "info",
        "web",
    )
    assert line["timestamp"].endswith("Z")


def test_lines_on_a_terminal() -> None:
    """A terminal gets words, and an exception's trace without the values of variables."""
    stream = Terminal()
    configure(LogSettings(), stream)
    password_in_a_variable = "hunter2"
    try:
        raise ValueError("wrong")
    except ValueError:
        get_logger("x").exception("failed")
    text = stream.getvalue()
    assert "failed" in text
    assert "ValueError" in text
    assert password_in_a_variable not in text


@pytest.mark.parametrize(("format_", "is_json"), [("json", True), ("console", False)])
def test_log_format_can_be_configured(format_: str, is_json: bool) -> None:
    """The option wins over the kind of stream."""
    stream = Terminal() if is_json else io.StringIO()
    configure(LogSettings.model_validate({"format": format_}), stream)
    get_logger("x").info("event")
    assert stream.getvalue().startswith("{") is is_json


def test_log_level_filters() -> None:
    """Lines below the level are not written."""
    stream = io.StringIO()
    configure(LogSettings(level="warning"), stream)
    get_logger("x").info("quiet")
    get_logger("x").warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_debug_lines_are_dropped_before_structlog() -> None:
    """At a higher level a debug line does not reach structlog; at debug it is written like any other."""
    stream = io.StringIO()
    configure(LogSettings(), stream)
    get_logger("x").debug("hidden")
    assert (stream.getvalue(), debug_enabled()) == ("", False)
    configure(LogSettings(level="debug"), stream)
    get_logger("x").debug("shown", count=1)
    assert json.loads(stream.getvalue())["event"] == "shown"
    assert debug_enabled()


def test_secrets_are_masked() -> None:
    """The name of the key decides, in any case."""
    stream = io.StringIO()
    configure(LogSettings(), stream)
    get_logger("x").info("event", Authorization="Basic abc", api_token="abc", user="me")
    line = json.loads(stream.getvalue())
    assert (line["Authorization"], line["api_token"], line["user"]) == ("***", "***", "me")


def test_library_warnings_use_the_same_format() -> None:
    """Warnings through the standard library's logging are lines like ours."""
    stream = io.StringIO()
    configure(LogSettings(level="debug"), stream)
    logging.getLogger("aiohttp.server").warning("odd")
    logging.getLogger("aiohttp.server").info("chatter")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "odd"


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("https://a.test/path", "https://a.test/path"),
        ("https://me:pw@a.test:5000/x", "https://a.test:5000/x"),
        ("https://a.test/x?sig=abc&exp=1&flag", "https://a.test/x?sig=***&exp=***&flag=***"),
        ("https://a.test/x#frag", "https://a.test/x"),
    ],
)
def test_redact_url(url: str, redacted: str) -> None:
    """User and password, and every value of the query: a signed URL is a credential."""
    assert redact_url(url) == redacted


def fields(number: int) -> dict[str, object]:
    return {"id": f"{number:04x}", "kind": "100% blob", "took": number / 4, "note": None}


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "console"])
def test_line_template_makes_the_same_lines(stream: io.StringIO) -> None:
    """A template that is filled in equals a line that is rendered."""
    configure(LogSettings(), stream)
    template = LineTemplate("cache", "answered", fields(7), ["id", "took", "timestamp"])
    get_logger("mirror.cache").info("answered", **fields(9), timestamp="now")
    filled = template.fill(("0009", 2.25, "now"))
    assert filled == stream.getvalue().rstrip("\n")


def test_line_template_for_a_filtered_level_raises() -> None:
    """A template of lines below the level raises LineFiltered."""
    configure(LogSettings(level="error"), io.StringIO())
    with pytest.raises(LineFiltered):
        LineTemplate("access", "request", fields(7), ["id"])


def test_write_lines_in_pieces_that_a_pipe_keeps_together() -> None:
    """Lines of several processes do not mix; a line longer than PIPE_BUF is written whole."""
    writes: list[str] = []

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    configure(LogSettings(), Pipe())
    write_lines([])
    lines = ["x" * 1000] * 9 + ["y" * 5000, "z"]
    write_lines(lines)
    assert "".join(writes) == "\n".join([*lines, ""])
    assert [len(each) for each in writes] == [4004, 4004, 1001, 5001, 2]


def test_bind_context_adds_to_every_line() -> None:
    """Every later line has the key, for instance the worker's number."""
    stream = io.StringIO()
    configure(LogSettings(), stream)
    with structlog.contextvars.bound_contextvars():
        bind_context(worker=1)
        get_logger("mirror.web").info("request")
        structlog.contextvars.unbind_contextvars("worker")
    assert json.loads(stream.getvalue())["worker"] == 1


def test_timestamps_are_in_utc() -> None:
    """Timestamps have microseconds, and always the same length."""
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"


def test_structlog_is_imported_by_the_first_line_and_without_rich() -> None:
    """A command that logs nothing pays for neither; settings that were kept for later apply to that line."""
    program = """
import sys
from types import SimpleNamespace
from mirror.util.log import configure_later, get_logger
configure_later(SimpleNamespace(level="info", format="json"))
log = get_logger("mirror.cli")
assert "structlog" not in sys.modules
log.info("event")
assert "structlog" in sys.modules
assert not [name for name in sys.modules if name.partition(".")[0] == "rich"]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["event"] == "event"
