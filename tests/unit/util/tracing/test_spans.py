"""Spans where nothing is traced, and the attributes of those that are."""

import subprocess
import sys

from mirror.util.tracing import spans

PROGRAM = """
import sys
import mirror.web.serving.server, mirror.cli.serve
assert not [each for each in sys.modules if each.startswith("opentelemetry")]
"""


def test_spans_cost_no_import_where_nothing_is_traced() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)


def test_spans_are_none_where_nothing_is_traced() -> None:
    """Each call returns at once, and changes no header."""
    headers = {"traceparent": "x"}
    assert spans.begin_request(headers) is None
    assert spans.begin_fill({}) is None
    assert not spans.is_traced(headers)
    span, told = spans.begin_exchange("hub.test", "hub.test", "GET", headers, own=True)
    assert span is None
    assert told is headers
    spans.end_exchange(span, 200)
    spans.end_request(None, {})
    spans.enter_fill(None)
    spans.join_fill(None)


def test_span_of_a_request_has_neither_path_nor_note() -> None:
    """Fields of the access line that others than operators may read; a status from 500 on is an error."""
    assert not {"path", "note", "identity"} & set(spans.REQUEST_FIELDS)
