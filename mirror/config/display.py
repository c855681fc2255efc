"""Values of options as people write them: times and sizes in units, words for 0 and for nothing."""

from typing import Any, get_args

from pydantic.fields import FieldInfo

from mirror.config.types import Unit


def unit_of(field: FieldInfo) -> Unit | None:
    """Return the unit of an option's values, or None if they have no unit."""
    markers = [*field.metadata, *(each for kind in get_args(field.annotation) for each in _metadata(kind))]
    return next((each for each in markers if isinstance(each, Unit)), None)


def zero_of(field: FieldInfo) -> str | None:
    """Return the meaning of 0 for an option, or None if 0 is a number like any other."""
    extra = field.json_schema_extra
    return str(extra["zero"]) if isinstance(extra, dict) and "zero" in extra else None


def shown(value: object, field: FieldInfo) -> str:
    """Return an option's value for people: "1GiB", "1h30m", "0 (no limit)", "-" for no value."""
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    unit = unit_of(field)
    text = str(value) if unit is None else unit.format(value)
    zero = zero_of(field)
    return f"0 ({zero})" if text == "0" and zero is not None else text


def _metadata(kind: Any) -> tuple[object, ...]:
    metadata: tuple[object, ...] = getattr(kind, "__metadata__", ())
    return metadata
