"""Ranges of versions, for tags: `>=3.18 <4`, `^1.25`, `~2.4.1`, `==3.19.*`; pure.

No tag begins like these, so a range cannot be taken for a tag. Versions are compared as PEP 440 has it, which
agrees with semantic versioning for the numbers; a `v` in front is ignored. Tags that are no versions, such as
`latest` and `3.20-slim`, match no range, and pre-releases only a range that names one.
"""

import re
from collections.abc import Iterator

from msgspec import Struct
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

# The beginning of a range: no tag begins so.
OPERATOR = re.compile(r"[<>=!~^]")
_PART = re.compile(r"(<=|>=|={1,3}|!=|~=|<|>|~|\^)\s*([^\s,<>=!~^]+)\s*,?\s*")
_NUMBERS = re.compile(r"v?([0-9]+(?:\.[0-9]+)*)")


class VersionRange(Struct, frozen=True):
    """A range of versions. `text` is as people wrote it."""

    text: str
    specifiers: str

    @classmethod
    def parse(cls, text: str) -> "VersionRange":
        """Parse a range. Raises ValueError with a message for its author."""
        parts: list[str] = []
        at = 0
        for found in _PART.finditer(text):
            if found.start() != at:
                break
            parts += _specifiers(found[1], found[2])
            at = found.end()
        specifiers = ",".join(parts)
        try:
            SpecifierSet(specifiers)
        except InvalidSpecifier:
            at = -1
        if at != len(text) or not parts:
            raise ValueError(f"{text!r} is not a range of versions, for instance >=3.18 <4, ^1.25 or ~2.4.1")
        return cls(text, specifiers)

    def select(self, tags: Iterator[str]) -> list[str]:
        """Return the tags in the range, the lowest version first."""
        wanted = SpecifierSet(self.specifiers)
        found = []
        for tag in tags:
            version = version_of(tag)
            if version is not None and wanted.contains(version, prereleases=bool(wanted.prereleases)):
                found.append((version, tag))
        return [tag for _, tag in sorted(found)]


def version_of(tag: str) -> Version | None:
    """Return the version that a tag is; None for other tags."""
    try:
        return Version(tag)
    except ValueError:  # InvalidVersion, or a number of more digits than Python takes
        return None


def _specifiers(operator: str, version: str) -> Iterator[str]:
    """Yield the specifiers of PEP 440 for a part of a range."""
    numbers = _NUMBERS.fullmatch(version)
    if operator not in ("^", "~") or numbers is None:
        yield f"{'==' if operator == '=' else operator}{version}"
        return
    parts = [int(each) for each in numbers[1].split(".")]
    # As npm has it: ^ keeps the first number that is not 0, and ~ the second one.
    kept = min(1, len(parts) - 1)
    if operator == "^":
        kept = next((place for place, each in enumerate(parts) if each), len(parts) - 1)
    yield f">={numbers[1]}"
    yield f"<{'.'.join(map(str, [*parts[:kept], parts[kept] + 1]))}"
