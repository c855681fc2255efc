"""The end of the log in memory: bounded, filtered, without secrets."""

import io
from collections.abc import Iterator

import pytest

from mirror.config.schema import LogSettings
from mirror.util.log import LineTemplate, configure, get_logger
from mirror.web.activity.entries import LogQuestion
from mirror.web.activity.log_tail import MOST_LINES, TEXT_CHARACTERS, LogTail

log = get_logger("mirror.transfer.fill")


@pytest.fixture
def tail(own_logging: None) -> Iterator[LogTail]:
    configure(LogSettings(level="info"), io.StringIO())
    tail = LogTail(3)
    tail.open()
    yield tail
    tail.close()
    tail.close()


def test_log_tail_filters_by_level_component_and_text(tail: LogTail) -> None:
    """The gravest of two levels counts; a text may be in any field."""
    log.info("fill began", digest="sha256:abc")
    log.warning("source failed", source="https://Quay.test")
    get_logger("mirror.web.app").error("unexpected")
    events = [each.event for each in tail.lines(LogQuestion())]
    assert events == ["fill began", "source failed", "unexpected"]
    assert [each.event for each in tail.lines(LogQuestion("warning", "transfer"))] == ["source failed"]
    (line,) = tail.lines(LogQuestion(text="quay.TEST"))
    assert (line.worker, line.level, line.component) == (3, "warning", "transfer.fill")
    assert line.fields == {"source": "https://Quay.test"}
    assert [each.event for each in tail.lines(LogQuestion(limit=1))] == ["unexpected"]


def test_log_tail_masks_secrets_and_names_exceptions(tail: LogTail) -> None:
    """Values that the log masks are masked here too."""
    try:
        raise ValueError("no such thing")
    except ValueError:
        log.exception("it failed", password="hunter2", token="rmt_x", half="\ud800")
    (line,) = tail.lines(LogQuestion())
    assert line.fields["password"] == line.fields["token"] == "***"
    assert line.fields["exception"] == "ValueError: no such thing"
    assert line.fields["half"] == "?"
    assert "hunter2" not in repr(line)


def test_log_tail_is_bounded(tail: LogTail) -> None:
    """The oldest lines go first, and long texts are cut; a template's sample is no line."""
    LineTemplate("web.app", "served", {"client": "1.2.3.4", "timestamp": ""}, ["client", "timestamp"])
    for number in range(MOST_LINES + 5):
        log.info("line", number=number, long="x" * 5000)
    found = tail.lines(LogQuestion(limit=2 * MOST_LINES))
    assert len(found) == MOST_LINES
    assert found[0].fields["number"] == "5"
    assert len(found[0].fields["long"]) == TEXT_CHARACTERS
    tail.close()
    log.info("after the end")
    assert tail.lines(LogQuestion(text="after the end")) == []
