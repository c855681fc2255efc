"""Reader of the errors of aiohttp's parser: which header of a head is wrong, and how.

The parser quotes the line that it refused, and the value in it may be a secret. Of a quoted line only the
header's name is taken, and only if it looks like one.
"""

import re
from collections.abc import Callable

# Words of llhttp that stand before the quoted line, and ours in their place.
_WORDS = {
    "Invalid header token": "has a name with a character that no name has, or no colon",
    "Invalid header value char": "has a control character in its value",
    "Invalid HTTP header": "has a control character in its value",
    "Duplicate Content-Length": "is there twice, with different values",
    "Invalid character in Content-Length": "is not a number",
    "Content-Length overflow": "is too large a number",
    "Content-Length can't be present with Transfer-Encoding": "is there beside Transfer-Encoding",
    "Transfer-Encoding can't be present with Content-Length": "is there beside Content-Length",
    "Invalid Transfer-Encoding": "is none that is known",
    "Missing expected LF after header value": "does not end as a line does",
    "Missing expected CR after header value": "does not end as a line does",
}
_QUOTED_NAME = re.compile(r"b['\"]([A-Za-z][A-Za-z0-9-]{0,63})[ \t]*:")
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,63}")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TWICE = re.compile(r"Duplicate '([A-Za-z][A-Za-z0-9-]{0,63})' header found")
_TOO_LONG = re.compile(r"Got more than ([0-9]+) bytes when reading")


def header_fault(message: str, head: bytes = b"") -> str | None:
    """Return the header at fault and what is wrong with it; None if `message` is not about a header.

    `head`: the bytes of the head, if they are here. The parser does not always say which header it is.
    """
    if match := _TOO_LONG.match(message):
        limit, longer = int(match[1]), f"longer than {match[1]} bytes"
        name = _name_of(head, lambda value: len(value) > limit)
        return f"the header {name} is {longer}" if name else f"a line of the head is {longer}"
    if match := _TWICE.match(message):
        return f"the header {match[1]} is there twice"
    if message.startswith("Too many headers"):
        return "there are too many headers"
    words = next((words for start, words in _WORDS.items() if message.startswith(start)), None)
    if words is None:
        return None
    quoted = _QUOTED_NAME.search(message)
    name = quoted[1] if quoted else _name_of(head, lambda value: _CONTROL.search(value) is not None)
    return f"the header {name} {words}" if name else f"a header {words}"


def _name_of(head: bytes, is_wrong: Callable[[bytes], bool]) -> str | None:
    """Return the name of the first header whose value is wrong."""
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon and _NAME.fullmatch(name) and is_wrong(value.strip()):
            return name.decode()
    return None
