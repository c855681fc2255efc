"""Lines of a TOML file: where each table and each key is written.

`tomllib` tells no lines. This scanner reads a text that `tomllib` has accepted, so it checks nothing: it only
steps over strings, arrays and comments. Keys in inline tables have the line of the key that holds them.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]

# A string, a comment, a bracket, a line's end, or what is none of these.
TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}]"
    r"|\n"
    r"|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)

# A part of a dotted key: bare or in quotes.
PART = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|[A-Za-z0-9_-]+')

# Quotes around a part of a key; escapes in it are not resolved.
QUOTES = "\"'"


def toml_lines(text: str) -> Mapping[Path, int]:
    """Return the line of each table and key by its path; tables of a list have their index in it."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = defaultdict(int)
    table: Path = ()
    for line, statement in _statements(text):
        if statement.startswith("[["):
            above = _with_indexes(_parts(statement), counts, last=False)
            table = (*above, counts[above])
            counts[above] += 1
            found[table] = line
        elif statement.startswith("["):
            table = _with_indexes(_parts(statement), counts)
            found[table] = line
        else:
            path = table
            for part in _parts(_before_equals(statement)):
                path = (*path, part)
                found.setdefault(path, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each header and each assignment with the number of its first line."""
    line, began, depth, parts = 1, 1, 0, list[str]()
    for piece in TOKEN.findall(text.replace("\r\n", "\n") + "\n"):
        if piece == "\n" and depth == 0:
            if statement := "".join(parts).strip():
                yield began, statement
            parts = []
        elif not piece.startswith("#"):
            if piece.strip() and not "".join(parts).strip():
                began, parts = line, []
            depth += (piece in ("[", "{")) - (piece in ("]", "}"))
            parts.append(piece)
        line += piece.count("\n")


def _before_equals(statement: str) -> str:
    """Return the key of an assignment; one in quotes may have an equals sign."""
    end = 0
    while (part := PART.search(statement, end)) is not None and "=" not in statement[end : part.start()]:
        end = part.end()
    return statement[:end]


def _parts(text: str) -> list[str]:
    return [each.strip(QUOTES) for each in PART.findall(text)]


def _with_indexes(parts: list[str], counts: Mapping[Path, int], *, last: bool = True) -> Path:
    """Return a path with the index of the newest table of each list on the way."""
    path: Path = ()
    for number, part in enumerate(parts, 1):
        path = (*path, part)
        if path in counts and (last or number < len(parts)):
            path = (*path, counts[path] - 1)
    return path
