"""Values of options as people write them: times and sizes in units, words for 0 and for nothing."""

from mirror.config.types import Unit
from mirror.config.validation import Option


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
