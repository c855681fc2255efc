"""The parser of JSON from outside."""

import ast
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.oci.json_text import MOST_VALUES, TooManyValues, may_be_object, parse

MIRROR = Path(__file__).parents[3] / "mirror"

PARSERS = {"json.load", "json.loads", "json.JSONDecoder"}

# Modules that read what the mirror itself has written: index, pins, metrics of workers, the scrub's cursor,
# uses of tokens; and payloads of its own tokens, once their signature is proven.
OWN_TEXT = {
    "doctor/client.py",
    "hosted/several.py",
    "setup/changes.py",
    "setup/clients.py",
    "setup/docker.py",
    "metrics/multiprocess.py",
    "store/blobs/fsck.py",
    "store/metadata/index.py",
    "store/pins/manifest_journal.py",
    "store/pins/pin_file.py",
    "store/tokens/token_file.py",
    "web/admin/pages/render.py",
    "web/identity/issued.py",
    "web/identity/signer.py",
}


@pytest.mark.parametrize("value", [{"a": [1, -2.5, "é", None, True, {}]}, [], "text", 7])
def test_json_text_value_is_as_json_says(value: object) -> None:
    """A text of a usual size has the value that the standard library gives it."""
    assert parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        lambda: b"{" + b",".join(b'"k%d":1' % each for each in range(300_000)) + b"}",
        lambda: b"{" + b",".join([b'"a":1'] * 300_000) + b"}",
        lambda: b"[" + b",".join([b"{}"] * 100_000) + b"]",
        lambda: b"[" + b",".join([b"1.2345678901234567e-300"] * 100_000) + b"]",
        lambda: b"[" * 1_000_000,
        lambda: ("[" + ",".join(["{}"] * 100_000) + "]").encode("utf-16"),
    ],
    ids=["keys", "same key", "empty objects", "numbers", "depth", "utf-16"],
)
def test_json_text_with_too_many_values_is_not_parsed(
    text: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that would take long is refused by a count of marks."""
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(TooManyValues):
        parse(text())


@pytest.mark.parametrize("text", [b'{"a":' * 5000, b"[" * 5000 + b"]" * 5000, b"{", b"\xff", b'"\\ud800'])
def test_json_text_that_cannot_be_read_is_a_value_error(text: bytes) -> None:
    """Depth and broken text raise ValueError and nothing else."""
    with pytest.raises(ValueError, match=r".") as raised:
        parse(text)
    assert not isinstance(raised.value, TooManyValues)


@pytest.mark.parametrize("number", ["1" * 4000, "1" * 5000, "0." + "1" * 4000, "1" * 50 + "e5"])
def test_json_text_number_without_end_is_infinite(number: str) -> None:
    """Python's integers cost the square of their length: a long number is not computed."""
    assert parse(f'{{"size":{number}}}'.encode()) == {"size": math.inf}


def test_json_text_long_strings_are_no_values() -> None:
    """Strings are cheap: four megabytes of them are parsed."""
    assert parse(json.dumps(["x" * 4_000_000]).encode()) == ["x" * 4_000_000]
    assert parse(b"[" + b",".join([b"1"] * (MOST_VALUES - 1)) + b"]", MOST_VALUES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b" {}\n", True), (b"{]", False), (b"<html>", False), (b"", False), (b"[{}]", False)],
)
def test_json_text_may_be_object(text: bytes, expected: bool) -> None:
    """Beginning and end tell whether a text may be an object."""
    assert may_be_object(text) is expected


def test_json_text_is_the_only_parser_of_text_from_outside() -> None:
    """No other module calls `json.load` or `json.loads`, but for text of this machine."""
    callers = set()
    for path in MIRROR.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in PARSERS:
                callers.add(str(path.relative_to(MIRROR)))
    # The reader of referrers takes 64 KiB at a time.
    assert callers - OWN_TEXT == {"oci/json_text.py", "oci/referrers.py"}
