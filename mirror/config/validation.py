"""Settings: frozen tables of options, and the check of raw values against their types.

msgspec makes the classes and checks plain types and limits. It stops at the first error, in its own words, so
values are converted one by one here: all errors are found at once, each with its place and its remedy.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct

Location = tuple[str | int, ...]

# How an environment variable says yes and no, besides 1 and 0.
BOOLS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}

# What a value of a plain type must be. The refused value follows.
FORMS: dict[object, str] = {
    str: "must be text in quotes",
    bool: "must be true or false",
    int: "must be a whole number",
    float: "must be a number",
}

# msgspec's error about a limit, for instance "Expected `int` >= 1".
LIMIT = re.compile(r"Expected `\w+` (>=|<=|>|<) ([^ ]+)")
LIMITS = {
    ">=": "must be at least",
    "<=": "must be at most",
    ">": "must be more than",
    "<": "must be less than",
}


class WrongForm(ValueError):
    """A value that is not what it must be. The value is appended to the message."""


class Problem(Struct, frozen=True):
    """An error about a value, and the keys and indexes that lead to the value."""

    location: Location
    error: ValueError


class Invalid(ValueError):
    """All errors about a table."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{'.'.join(map(str, each.location))}: {each.error}" for each in problems))
        self.problems = problems


class Doc(Struct, frozen=True):
    """Marker of an option: its description, as sentences, examples of values, and the meaning of 0."""

    description: str
    examples: Sequence[Any] = ()
    zero: str | None = None


class Before(Struct, frozen=True):
    """Marker of a type: a function of the raw value, called before the type is checked."""

    function: Callable[[object], object]


class Parse(Struct, frozen=True):
    """Marker of a type: a function of the raw value, called in place of the check of the type."""

    function: Callable[[object], object]


class After(Struct, frozen=True):
    """Marker of a type: a function of the converted value, which may refuse or replace the value."""

    function: Callable[[Any], object]


class Beside(Struct, frozen=True):
    """Marker of an option: a function of its value and of the valid options before it in the table.

    The function is called for the default too.
    """

    function: Callable[[Any, Mapping[str, Any]], object]


class Apart(Struct, frozen=True):
    """Marker of a field that is no option: the loader sets it."""


class Option(Struct, frozen=True):
    """An option of a table: its type with all markers, its default, and its checks beside other options."""

    kind: Any
    default: Any
    required: bool
    checks: tuple[Beside, ...] = ()

    @property
    def doc(self) -> Doc:
        """The description of the option."""
        return next(each for each in self.markers() if isinstance(each, Doc))

    def markers(self) -> Iterator[object]:
        """Yield the markers of the type, and of the types that it combines."""
        return _markers(self.kind)


class Settings(Struct, frozen=True):
    """Frozen values; an unknown key is an error.

    A subclass may define `__post_init__`, which raises ValueError if its values contradict each other.
    """

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """Return the options of the table by their keys, in order."""
        return _options(cls)

    @classmethod
    def model_validate(cls, values: Mapping[str, object]) -> Self:
        """Return the settings with these raw values. Raises Invalid, which has all problems."""
        return _convert_table(values, cls)

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """Return the settings with some values replaced, which are not converted."""
        return msgspec.structs.replace(self, **update)


T = TypeVar("T", bound=Settings)


class _Problems(list[Problem]):
    """The problems found in one table or list."""

    @contextmanager
    def at(self, *place: str | int) -> Iterator[None]:
        """Note errors of the block as errors about this place."""
        try:
            yield
        except Invalid as invalid:
            self += [Problem((*place, *each.location), each.error) for each in invalid.problems]
        except ValueError as error:
            self.append(Problem(place, error))

    def check(self) -> None:
        """Raise Invalid if there are any."""
        if self:
            raise Invalid(self)


def convert(value: object, kind: Any) -> Any:
    """Return a raw value as one of the type `kind`. Raises ValueError; for a table or a list, Invalid."""
    try:
        return _convert(value, kind)
    except WrongForm as error:
        shown = isinstance(value, str | int | float)
        raise ValueError(f"{error}, not {value!r:.80}" if shown else str(error)) from None


def no_such_key(name: str, names: list[str]) -> str:
    """Return the message about an unknown key, with the key that was probably meant."""
    from difflib import get_close_matches  # only errors need it

    close = [each for each in names if each.startswith(name)] or get_close_matches(name, names, 1)
    right = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(names))}"
    return f"there is no such key; {right}"


def _convert(value: object, kind: Any) -> Any:
    origin = get_origin(kind)
    if origin is Annotated:
        return _convert_marked(value, kind)
    if origin in (Union, UnionType) and NoneType in get_args(kind):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
        return None if value is None else _convert(value, kind)
    if origin is tuple:
        return _convert_list(value, get_args(kind)[0])
    if _is_table(kind):
        return _convert_table(value, kind)
    return _convert_plain(value, kind)


def _convert_marked(value: object, kind: Any) -> Any:
    """Call the functions of the markers around the conversion to the type."""
    base, *markers = get_args(kind)
    for each in markers:
        if isinstance(each, Before):
            value = each.function(value)
    if parsers := [each for each in markers if isinstance(each, Parse)]:
        value = parsers[0].function(value)
    else:
        value = _convert_plain(value, kind) if base in FORMS else _convert(value, base)
    for each in markers:
        if isinstance(each, After):
            value = each.function(value)
    return value


def _convert_list(value: object, kind: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        if _is_table(kind):
            raise ValueError("must be a list of tables of options")
        raise WrongForm("must be a list of texts in quotes")
    items, problems = [], _Problems()
    for number, each in enumerate(value):
        with problems.at(number):
            items.append(convert(each, kind))
    problems.check()
    return tuple(items)


def _convert_table(value: object, model: type[T]) -> T:
    if isinstance(value, model):
        return value
    if not isinstance(value, Mapping):
        raise WrongForm("must be a table of options")
    valid: dict[str, Any] = {}
    options, problems = model.options(), _Problems()
    for name, option in options.items():
        with problems.at(name):
            valid[name] = _option_value(name, option, value, valid)
    for name in (each for each in value if each not in options):
        problems.append(Problem((name,), ValueError(no_such_key(name, list(options)))))
    problems.check()
    return model(**valid)


def _option_value(name: str, option: Option, given: Mapping[str, object], valid: Mapping[str, Any]) -> Any:
    """Return the value of an option in a table, of which the options before it are in `valid`."""
    if name not in given and option.required:
        raise ValueError("is missing")
    value = convert(given[name], option.kind) if name in given else option.default
    for each in option.checks:
        value = each.function(value, valid)
    return value


def _convert_plain(value: object, kind: Any) -> Any:
    """Return a text, a truth value, a number, or one of some words."""
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(value, bool) and base in (int, float):
        raise ValueError("must be a number, not true or false")
    try:
        return msgspec.convert(_bare_value(value, base), kind, strict=False)
    except msgspec.ValidationError as error:
        _refuse(base, str(error))


def _bare_value(value: object, base: Any) -> object:
    """Return the truth value or the digits of a text, as an environment variable has them."""
    if not isinstance(value, str):
        return value
    if base is bool:
        return BOOLS.get(value.strip().lower(), value)
    return value.strip().replace("_", "") if base in (int, float) else value


def _refuse(base: Any, reason: str) -> NoReturn:
    """Raise the error for a value that msgspec refuses."""
    if get_origin(base) is Literal:
        *words, last = map(repr, get_args(base))
        raise WrongForm(f"must be {', '.join(words)} or {last}")
    if limit := LIMIT.fullmatch(reason):
        raise WrongForm(f"{LIMITS[limit[1]]} {limit[2].removesuffix('.0')}")
    raise WrongForm(FORMS[base])


def bare(kind: Any) -> Any:
    """Return a type without its markers."""
    return bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _markers(kind: Any) -> Iterator[object]:
    if get_origin(kind) is Annotated:
        base, *markers = get_args(kind)
        yield from markers
        yield from _markers(base)
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _markers(each)


@cache
def _options(model: type[Settings]) -> Mapping[str, Option]:
    def default(field: msgspec.structs.FieldInfo) -> object:
        factory = field.default_factory
        return field.default if factory is msgspec.NODEFAULT else factory()

    return {
        each.name: Option(
            each.type,
            default(each),
            each.required,
            tuple(marker for marker in _markers(each.type) if isinstance(marker, Beside)),
        )
        for each in msgspec.structs.fields(model)
        if not any(isinstance(marker, Apart) for marker in _markers(each.type))
    }
