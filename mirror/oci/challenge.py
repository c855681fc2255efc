"""Parser of WWW-Authenticate (RFC 9110 section 11.6.1), including several challenges in one header."""

import re
from collections.abc import Iterable, Mapping
from itertools import islice

from msgspec import Struct, field

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # `token` of RFC 9110, not a secret
PARAMETER = re.compile(rf"({TOKEN})[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|({TOKEN}))")
SCHEME = re.compile(rf"({TOKEN})(?=[ \t,]|$)[ \t]*")
# A scheme may be followed by a token68 in place of parameters. The parser skips it.
TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)*")

# Challenges that are read, and characters of each line; a server has one or two, of some hundred characters.
MOST_CHALLENGES = 16
LONGEST_LINE = 8 * 1024


class Challenge(Struct, frozen=True):
    """One authentication challenge. `scheme` and the parameter names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def server(self) -> tuple[str, str | None, str | None]:
        """Identity of the server that authenticates: scheme, realm and service."""
        return (self.scheme, self.parameters.get("realm"), self.parameters.get("service"))


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return the first challenges of all WWW-Authenticate lines, in order. Malformed parts are skipped."""
    found: list[Challenge] = []
    for header in islice(headers, MOST_CHALLENGES):
        found += _parse(header[:LONGEST_LINE])
        if len(found) >= MOST_CHALLENGES:
            break
    return found[:MOST_CHALLENGES]


def _parse(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(header) and len(found) <= MOST_CHALLENGES:
        position = _end(SEPARATOR, header, position)
        if found and (match := PARAMETER.match(header, position)):
            value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
            found[-1][1].setdefault(match[1].lower(), value)
            position = match.end()
        elif match := SCHEME.match(header, position):
            found.append((match[1].lower(), {}))
            position = match.end()
            if not PARAMETER.match(header, position):
                position = _end(TOKEN68, header, position)
        else:
            # Malformed: continue after the next comma.
            comma = header.find(",", position)
            position = len(header) if comma < 0 else comma + 1
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
