"""Variables in Compose files: `$NAME`, `${NAME}`, `${NAME:-default}` and its relatives; pure.

The rules are those of the Compose specification, "Interpolation", but for the values: only those that the
operator names. Neither the environment nor a file `.env` that lies beside the Compose file is read unasked: a
list that somebody else wrote could put a secret of the operator into the name of an image, which goes to a
registry of the list's choice.
"""

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*?)\s*")

# Variables within the default of a variable: more is no name that anyone wrote.
_MAX_DEPTH = 16

# What the operator does about a variable without a value, by its name.
ADVICE = "give a value with --env {0}=VALUE, --env {0} (that of the environment), or --env-file FILE"


class Unset(ValueError):
    """A variable that has no value, or a `${...}` that is not closed."""


def interpolate(text: str, values: Mapping[str, str], depth: int = 0) -> str:
    """Return the text with its variables replaced. Raises Unset."""
    if depth > _MAX_DEPTH:
        raise Unset("its variables are nested too deep")
    parts, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        value, at = _variable(text, dollar + 1, values, depth)
        parts.append(value)
    return "".join([*parts, text[at:]])


def _variable(text: str, at: int, values: Mapping[str, str], depth: int) -> tuple[str, int]:
    """Return the value of the variable at `at`, behind its dollar, and where the text goes on."""
    if text[at : at + 1] == "$":
        return "$", at + 1
    braced = text[at : at + 1] == "{"
    name = _NAME.match(text, at + braced)
    if name is None:
        raise Unset(f"{text!r} has a $ without the name of a variable: a plain one is written $$")
    if not braced:
        return _value(name[0], values), name.end()
    end = _end(text, name.end())
    return _braced(name[0], text[name.end() : end], values, depth), end + 1


def _end(text: str, at: int) -> int:
    """Return the place of the bracket that closes a `${`."""
    opened = 1
    for place in range(at, len(text)):
        opened += text.startswith("${", place) - (text[place] == "}")
        if not opened:
            return place
    raise Unset(f"{text!r} has a ${{ that is not closed")


def _braced(name: str, rest: str, values: Mapping[str, str], depth: int) -> str:
    value, empty_counts = values.get(name), not rest.startswith(":")
    missing = value is None or (not value and not empty_counts)
    operator, words = rest.removeprefix(":")[:1], rest.removeprefix(":")[1:]
    if not rest:
        return _value(name, values)
    if operator == "-":
        return interpolate(words, values, depth + 1) if missing else value or ""
    if operator == "+":
        return "" if missing else interpolate(words, values, depth + 1)
    if operator == "?" and not missing:
        return value or ""
    if operator == "?":
        raise Unset(f"{name} is not set: {f'{words}; ' if words else ''}{ADVICE.format(name)}")
    raise Unset(f"${{{name}{rest}}} is not understood")


def _value(name: str, values: Mapping[str, str]) -> str:
    """Return a value. Compose takes an empty one for a variable that is not set; no image is called so."""
    value = values.get(name)
    if value is None:
        raise Unset(f"{name} is not set: {ADVICE.format(name)}")
    return value


def read_env(text: str) -> dict[str, str]:
    """Return the values of a file such as `.env`; lines that set nothing are skipped."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (parts := _LINE.fullmatch(line)) is None:
            continue
        value = parts[2]
        if value[:1] in ("'", '"') and (end := value.find(value[0], 1)) > 0:
            found[parts[1]] = value[1:end]
        else:
            found[parts[1]] = re.split(r"\s+#", value, maxsplit=1)[0]
    return found
