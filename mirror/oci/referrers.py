"""Lists of referrers, as JSON text that is read one descriptor after the other.

A list may have tens of thousands of descriptors. Read as a whole, it would hold the interpreter for as long
as that takes, from a thread too; descriptor by descriptor, other threads go on. A list stays a text, the JSON
array: nothing needs to be parsed or printed to answer with all of it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from mirror.oci.json_text import integer, real
from mirror.oci.manifest import OCI_INDEX, ManifestInvalid, check_descriptor

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_int=integer, parse_float=real)

# Characters that are looked at for one value: most values end within the first number, all within the second.
_USUAL, _LONGEST = 2 * 1024, 64 * 1024


def texts_of_index(data: bytes) -> list[str]:
    """Return the descriptors of an OCI index, each as JSON text. Raises ManifestInvalid."""
    try:
        reader, found, fields = _Reader(data.decode("utf-8-sig")), None, {}
        for name in reader.names():
            if name == "manifests":
                found = [text for text, value in reader.elements() if check_descriptor(value)]
            else:
                fields[name] = reader.value()
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"not an OCI index: {error}") from None
    if found is None or fields.get("mediaType", OCI_INDEX) != OCI_INDEX:
        raise ManifestInvalid("not an OCI index")
    return found


def array_of(texts: Iterable[str]) -> str:
    """Return a list of referrers of descriptors, which are JSON texts."""
    return f"[{','.join(texts)}]"


def index_of(array: str) -> bytes:
    """Return an OCI index of a list: a response of the referrers API."""
    return f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":{array}}}'.encode()


def descriptors_in(array: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list; those before a place that is no JSON, if there is one."""
    with suppress(ValueError, RecursionError):
        yield from (value for _, value in _Reader(array).elements() if isinstance(value, dict))


def type_of(text: str) -> str:
    """Return the artifactType of one descriptor; none for one that has none, and for other text."""
    with suppress(ValueError, RecursionError):
        value = _Reader(text).value()
        kind = value.get("artifactType") if isinstance(value, dict) else None
        return kind if isinstance(kind, str) else ""
    return ""


def texts_by_type(array: str) -> dict[str, list[tuple[int, str]]]:
    """Return the descriptors of a list by their artifactType: the place in the list, and the JSON text."""
    found: dict[str, list[tuple[int, str]]] = {}
    with suppress(ValueError, RecursionError):  # a row that is damaged ends early
        for place, (text, value) in enumerate(_Reader(array).elements()):
            kind = value.get("artifactType") if isinstance(value, dict) else None
            found.setdefault(kind if isinstance(kind, str) else "", []).append((place, text))
    return found


class _Reader:
    """A place in a JSON text. All methods raise ValueError for text that is not as expected."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def names(self) -> Iterator[str]:
        """Yield the names of the object here; the caller reads each value before it takes the next name."""
        self._expect("{")
        while not self._skip("}"):
            name = self.value()
            if not isinstance(name, str):
                raise ValueError("a name that is no text")
            self._expect(":")
            yield name
            self._end_of_item("}")
        if self._next():
            raise ValueError("text behind the object")

    def elements(self) -> Iterator[tuple[str, Any]]:
        """Yield the text and the value of each element of the array here."""
        self._expect("[")
        while not self._skip("]"):
            self._next()
            start = self._at
            value = self.value()
            yield self._text[start : self._at], value
            self._end_of_item("]")

    def value(self) -> Any:
        """Return the value here."""
        self._next()
        for length in (_USUAL, _LONGEST):
            window = self._text[self._at : self._at + length]
            try:
                value, used = _DECODER.raw_decode(window)
            except json.JSONDecodeError:
                if length == _LONGEST or len(window) < length:
                    raise ValueError(f"no value at character {self._at}, or a very long one") from None
                continue
            self._at += used
            return value
        return None

    def _end_of_item(self, end: str) -> None:
        """Go past a comma, behind which there must be a further item."""
        if self._skip(","):
            if self._next() == end:
                raise ValueError("an item is missing")
        elif self._next() != end:
            raise ValueError("a comma is missing")

    def _next(self) -> str:
        """Go past white space; return the character there, none at the end."""
        space = _SPACE.match(self._text, self._at)
        self._at = self._at if space is None else space.end()
        return self._text[self._at : self._at + 1]

    def _skip(self, character: str) -> bool:
        """Go past the character, and return whether it was here."""
        found = self._next() == character
        self._at += found
        return found

    def _expect(self, character: str) -> None:
        if not self._skip(character):
            raise ValueError(f"no {character} at character {self._at}")
