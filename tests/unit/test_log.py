"""Logs: lines for people, JSON for machines, secrets for nobody."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from mirror.config import Log
from mirror.log import configure, get_logger, redact_url


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Logging is global; other tests have theirs as before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def test_json_where_nobody_looks() -> None:
    """One object per line, with time, level, event and where it came from."""
    stream = io.StringIO()
    configure(Log(), stream)
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
    """Words, not braces; an exception with its trace, and without the values of its variables."""
    stream = Terminal()
    configure(Log(), stream)
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
def test_the_format_can_be_chosen(format_: str, is_json: bool) -> None:
    """Whatever the stream is."""
    stream = Terminal() if is_json else io.StringIO()
    configure(Log.model_validate({"format": format_}), stream)
    get_logger("x").info("event")
    assert stream.getvalue().startswith("{") is is_json


def test_levels_filter() -> None:
    """Below the level nothing is written."""
    stream = io.StringIO()
    configure(Log(level="warning"), stream)
    get_logger("x").info("quiet")
    get_logger("x").warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_secrets_are_masked() -> None:
    """By the name of the key, in whatever case."""
    stream = io.StringIO()
    configure(Log(), stream)
    get_logger("x").info("event", Authorization="Basic abc", api_token="abc", user="me")
    line = json.loads(stream.getvalue())
    assert (line["Authorization"], line["api_token"], line["user"]) == ("***", "***", "me")


def test_what_libraries_log_comes_the_same_way() -> None:
    """Warnings of the standard library's logging are lines like ours."""
    stream = io.StringIO()
    configure(Log(level="debug"), stream)
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
def test_urls_lose_what_is_secret(url: str, redacted: str) -> None:
    """User and password, and every value of the query: a signed URL is a credential."""
    assert redact_url(url) == redacted
