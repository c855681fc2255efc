"""Values of options as people write them: times and sizes in units, words for 0 and for nothing."""

from collections.abc import Iterator

from mirror.config.schema import Config
from mirror.config.tables import LAYOUT
from mirror.config.types import Unit
from mirror.config.validation import Option, Settings


def unit_of(option: Option) -> Unit | None:
    """Return the unit of an option's values, or None if they have no unit."""
    return next((each for each in option.markers() if isinstance(each, Unit)), None)


def shown(value: object, option: Option) -> str:
    """Return an option's value for people: "1GiB", "1h30m", "0 (no limit)", "-" for no value."""
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    unit = unit_of(option)
    text = str(value) if unit is None else unit.format(value)
    zero = option.doc.zero
    return f"0 ({zero})" if text == "0" and zero is not None else text


def option_rows(config: Config) -> list[tuple[str, object, Option, bool]]:
    """Return dotted key, value and option of every option, and whether the value is not its default."""
    options = [*_options("", config)]
    for row in LAYOUT.tables:
        for table in getattr(config, row.field):
            options += _options(f"{row.section}.{getattr(table, row.key)}.", table)
    return options


def _options(prefix: str, table: Settings) -> Iterator[tuple[str, object, Option, bool]]:
    """Yield every option below `prefix`; tables in a list count from 1."""
    defaults = dict(zip(reversed(table.__struct_fields__), reversed(table.__struct_defaults__), strict=False))
    for name, option in type(table).options().items():
        value = getattr(table, name)
        if isinstance(value, Settings):
            yield from _options(f"{prefix}{name}.", value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Settings):
            if LAYOUT.table_of_field(name) is None:
                for number, each in enumerate(value, 1):
                    yield from _options(f"{prefix}{name}.{number}.", each)
        else:
            yield f"{prefix}{name}", value, option, name not in defaults or defaults[name] != value
