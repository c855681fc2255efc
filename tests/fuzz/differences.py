"""Known differences between aiohttp's two parsers: requests with two statuses, and why that is no harm."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

_METHODS = "GET|HEAD|PUT|POST|PATCH|DELETE|OPTIONS|TRACE|PROPFIND"


@dataclass(frozen=True)
class Difference:
    """A kind of damage. `pattern` is found in the bytes of the case.

    `statuses`: the first pair that differs, of llhttp (C) and of Python; 0 for an answer that is not there.
    """

    pattern: re.Pattern[bytes]
    statuses: frozenset[tuple[int, int]]
    reason: str


def _known(pattern: str, statuses: set[tuple[int, int]], reason: str) -> Difference:
    return Difference(re.compile(pattern.encode()), frozenset(statuses), reason)


_ANSWERS = (200, 206, 304, 400, 404, 405, 414, 416, 505)
_REFUSED_IN_C = {(400, status) for status in _ANSWERS}
_REFUSED_IN_PYTHON = {(status, 400) for status in _ANSWERS}
_ENDED_IN_PYTHON = {(status, 0) for status in _ANSWERS}
_ENDED_IN_C = {(0, status) for status in _ANSWERS}

KNOWN = [
    _known(
        r"(?:^|\n)[A-Za-z]+ [^\r\n]*[\x80-\xff]",
        _ENDED_IN_C | _REFUSED_IN_C,
        "a target beyond ASCII: 400 from both; llhttp ends the connection with it",
    ),
    _known(
        r"(?:^|\n)[A-Z]+ [^\r\n]*(?<! HTTP/1\.[01])\r?\n",
        {(400, 505), *_REFUSED_IN_PYTHON},
        "a version that is not spoken: llhttp reads HTTP/0.9, ICY and RTSP, Python other versions of HTTP",
    ),
    _known(
        r"(?:^|\n)[A-Z]+ (?: +[^ \r\n]+ +|[^ \r\n]+ {2,})HTTP/1\.[01]\r?\n",
        _REFUSED_IN_PYTHON,
        "more than one space in front of target or version: llhttp skips them, Python refuses the request",
    ),
    _known(
        rf"(?:^|\n)(?!(?:{_METHODS}) )[!#-'*+.0-9A-Z^-z|~-]+ ",
        _REFUSED_IN_C,
        "a method that llhttp does not know, or in small letters: Python takes it, and goes on",
    ),
    _known(
        r"(?:^|\n)CONNECT [^\r\n]*\r\n(?:[^\r\n]+\r\n)*(?i:Transfer-Encoding|Content-Length):",
        _REFUSED_IN_PYTHON,
        "CONNECT with wrong framing: llhttp reads none behind it, and the connection ends with the answer",
    ),
    _known(
        r"(?i)\nContent-Length: *[0-9]{19,}",
        _REFUSED_IN_C,
        "a Content-Length above 64 bits: Python answers, and ends the connection as after every body",
    ),
    _known(
        r"(?i)\nProxy-Connection:",
        _ENDED_IN_C,
        "Proxy-Connection: llhttp takes it for Connection, and ends the connection at `close`",
    ),
    _known(
        r"(?i) HTTP/1\.0\r\n(?:[^\r\n]+\r\n)*Connection: keep-alive, close",
        _ENDED_IN_PYTHON,
        "HTTP/1.0 with a Connection of two words: llhttp finds keep-alive in it",
    ),
    _known(
        r"(?:^|\r\n\r\n)(?:\r\n)*(?:\n|\r(?!\n))",
        _REFUSED_IN_PYTHON | _ENDED_IN_PYTHON,
        "bare line feeds or carriage returns in front of a request: llhttp skips them",
    ),
    _known(
        r"(?:^|\n)[A-Z]+ +(?i:https?):/?/?[^/ ]*[^A-Za-z0-9.:/ -]",
        _REFUSED_IN_C | _REFUSED_IN_PYTHON,
        "an absolute target with a host that is none: judged by llhttp's grammar, and by yarl's",
    ),
]


def reason_of(data: bytes, first: Sequence[int], second: Sequence[int]) -> str | None:
    """Return why the parsers may differ about these bytes; None if nothing is known about them."""
    differing = _differing(first, second)
    known = (each for each in KNOWN if differing & each.statuses and each.pattern.search(data))
    return next((each.reason for each in known), None)


def _differing(first: Sequence[int], second: Sequence[int]) -> set[tuple[int, int]]:
    """Return the first pair of statuses that differs, and what else it may be.

    A parser that refuses a request answers 400, and ends the connection. Where the mirror itself answers 400
    behind the other parser, both have the same status, and the end of the one connection differs: that end
    may be the refusal.
    """
    before = (0, 0)
    for pair in itertools.zip_longest(first, second, fillvalue=0):
        if pair[0] != pair[1]:
            return {pair, (pair[0] or 400, pair[1] or 400)} if before == (400, 400) else {pair}
        before = pair
    return set()
