"""Origins of values with the lines of the file that has them."""

from collections.abc import Mapping

from mirror.config.origins.toml_lines import Path, toml_lines
from mirror.config.tables import Layout


def with_lines(
    origins: Mapping[str, str], origin: str, text: str, names: Mapping[str, list[str]]
) -> dict[str, str]:
    """Return origins by dotted key; where the file is `origin`, with its line: `file mirror.toml:12`.

    `names`: by section, those of its named tables in the order of the file.
    """
    lines = {_dotted_key(path, names): line for path, line in toml_lines(text).items()}
    return {
        key: f"{origin}:{line}{value.removeprefix(origin)}"
        if (value == origin or value.startswith(f"{origin}, ")) and (line := _line(key, value, lines))
        else value
        for key, value in origins.items()
    }


def names_of(values: Mapping[str, object], layout: Layout) -> dict[str, list[str]]:
    """Return the names of the named tables of a file that was read."""
    found: dict[str, list[str]] = {}
    for section, tables in values.items():
        row = layout.table(section)
        if row is not None and isinstance(tables, list):
            found[section] = [row.name_of(each) or "" for each in tables]
    return found


def _dotted_key(path: Path, names: Mapping[str, list[str]]) -> str:
    parts = [each + 1 if isinstance(each, int) else each for each in path]
    if len(path) > 1 and isinstance(path[1], int) and (named := names.get(str(path[0]))) is not None:
        parts[1] = named[path[1]]
    return ".".join(map(str, parts))


def _line(key: str, origin: str, lines: Mapping[str, int]) -> int | None:
    """Return the line of a key, of its file of a password, or of the narrowest table that has it."""
    above, _, last = key.rpartition(".")
    if origin.endswith("password_file") and last == "password":
        key = f"{above}.password_file"
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return None
