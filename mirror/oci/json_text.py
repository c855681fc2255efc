"""JSON from outside, at a bounded cost.

A string costs next to nothing, however long it is; objects, lists and their members cost, each of them. A
million members fit into three megabytes, and hold the interpreter for a tenth of a second or more, from a
thread too. So the marks that begin a value are counted before the text is parsed. Marks inside strings count
too: the count is an upper bound.
"""

import json
import math
from typing import Any

# Most values of a document. An image of 1,000 layers with ten annotations each has 15,000.
MOST_VALUES = 32 * 1024

# Longest number, in characters: Python's integers cost the square of their length.
LONGEST_NUMBER = 40


class TooManyValues(ValueError):
    """The text was not parsed, because that could take too long."""


def parse(data: bytes, most: int = MOST_VALUES) -> Any:
    """Return the value of a JSON text. Raises ValueError, TooManyValues for more than `most` values.

    A number of more than LONGEST_NUMBER characters becomes an infinite one.
    """
    if has_more_values(data, most):
        raise TooManyValues(f"more than {most} values")
    try:
        return json.loads(data, parse_int=integer, parse_float=real)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def has_more_values(data: bytes, most: int) -> bool:
    """Return whether a JSON text may have more than `most` values."""
    return len(data) > most and sum(map(data.count, (b",", b"{", b"["))) > most


def may_be_object(data: bytes) -> bool:
    """Return whether a text that is not parsed begins and ends as a JSON object does."""
    return data[:1024].lstrip().startswith(b"{") and data[-1024:].rstrip().endswith(b"}")


def integer(text: str) -> float:
    """Return the value of a JSON integer, an infinite one for a very long text."""
    return int(text) if len(text) <= LONGEST_NUMBER else math.inf


def real(text: str) -> float:
    """Return the value of another JSON number, an infinite one for a very long text."""
    return float(text) if len(text) <= LONGEST_NUMBER else math.inf
