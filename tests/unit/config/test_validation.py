"""Tables of options: conversion of raw values, all errors at once, markers of types."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from mirror.config.validation import (
    After,
    Before,
    Beside,
    Doc,
    Invalid,
    Parse,
    Settings,
    WrongForm,
    convert,
    no_such_key,
)


def _refuse_13(value: int) -> int:
    if value == 13:
        raise ValueError("is unlucky")
    return value


def _at_least_low(value: int, valid: Mapping[str, Any]) -> int:
    if value < valid.get("low", 0):
        raise ValueError(f"is less than {valid['low']}")
    return value


class Inner(Settings, frozen=True, kw_only=True):
    """A table in a list."""

    name: Annotated[str, Doc("Name.", examples=["x"])]
    count: Annotated[int, Meta(ge=1, le=9), After(_refuse_13), Doc("Count.", zero="none")] = 1


class Outer(Settings, frozen=True, kw_only=True):
    """A table with every kind of option."""

    low: Annotated[int, Doc("Lower limit.")] = 2
    high: Annotated[int, Beside(_at_least_low), Doc("Upper limit.")] = 5
    share: Annotated[float, Meta(gt=0, lt=1), Doc("Share.")] = 0.5
    flag: Annotated[bool, Doc("Flag.")] = False
    word: Annotated[Literal["a", "b", "c"], Doc("Word.")] = "a"
    note: Annotated[str | None, Doc("Note.")] = None
    inner: Annotated[tuple[Inner, ...], Doc("Tables.")] = ()
    names: Annotated[tuple[Annotated[str, After(str.upper)], ...], Doc("Names.")] = ()
    odd: Annotated[int, After(_refuse_13), Doc("Odd.")] = 1

    def __post_init__(self) -> None:
        if self.word == "c" and self.note is None:
            raise ValueError("word c needs a note")


def problems(values: Mapping[str, object]) -> dict[str, str]:
    """Return the errors by the dotted places that they are about."""
    with pytest.raises(Invalid) as invalid:
        Outer.model_validate(values)
    return {".".join(map(str, each.location)): str(each.error) for each in invalid.value.problems}


def test_settings_have_defaults_and_converted_values() -> None:
    """Values that are not given are defaults; text is converted, as environment variables need it."""
    assert Outer.model_validate({}) == Outer()
    given = Outer.model_validate(
        {"low": " 3 ", "share": "0.25", "flag": "Yes", "word": "b", "note": "n", "names": ["x", "y"]}
    )
    assert (given.low, given.share, given.flag, given.word, given.note) == (3, 0.25, True, "b", "n")
    assert given.names == ("X", "Y")
    assert Outer.model_validate({"low": 3.0, "high": "1_000"}).high == 1000


def test_settings_are_frozen_and_copied() -> None:
    """A copy has other values; the checks of the table hold for it too."""
    settings = Outer()
    with pytest.raises(AttributeError, match="immutable"):
        settings.low = 7  # type: ignore[misc]
    assert settings.model_copy(update={"low": 4}) == Outer(low=4)
    with pytest.raises(ValueError, match="needs a note"):
        settings.model_copy(update={"word": "c"})


def test_all_errors_of_a_table_are_found() -> None:
    """Every wrong value has its place, its remedy and the value itself unless it is a table."""
    assert problems(
        {
            "low": 1.5,
            "high": True,
            "share": 1,
            "flag": "maybe",
            "word": "z",
            "note": 5,
            "inner": [{"name": "x", "count": 10}, {"count": 0, "nmae": 1}, "x"],
            "names": ["x", 5, ["y"]],
            "odd": 13,
            "lwo": 1,
        }
    ) == {
        "low": "must be a whole number, not 1.5",
        "high": "must be a number, not true or false",
        "share": "must be less than 1, not 1",
        "flag": "must be true or false, not 'maybe'",
        "word": "must be 'a', 'b' or 'c', not 'z'",
        "note": "must be text in quotes, not 5",
        "inner.0.count": "must be at most 9, not 10",
        "inner.1.name": "is missing",
        "inner.1.count": "must be at least 1, not 0",
        "inner.1.nmae": "there is no such key; did you mean name?",
        "inner.2": "must be a table of options, not 'x'",
        "names.1": "must be text in quotes, not 5",
        "names.2": "must be text in quotes",
        "odd": "is unlucky",
        "lwo": "there is no such key; did you mean low?",
    }


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"inner": {"name": "x"}}, "must be a list of tables of options"),
        ({"names": 5}, "must be a list of texts in quotes, not 5"),
        ({"share": 0}, "must be more than 0, not 0"),
        ({"share": "x" * 200}, f"must be a number, not '{'x' * 79}"),
    ],
)
def test_error_says_what_a_value_must_be(values: dict[str, object], error: str) -> None:
    """A list of tables has other words than a list of texts."""
    assert [*problems(values).values()] == [error]


def test_option_beside_others_sees_the_valid_ones() -> None:
    """The default is checked too; an option that is wrong itself is not seen."""
    assert problems({"low": 6}) == {"high": "is less than 6"}
    assert problems({"low": "x", "high": 1}) == {"low": "must be a whole number, not 'x'"}


def test_contradiction_is_found_when_all_values_are_valid() -> None:
    """The error is about the table, which is the place of its error in a list."""
    with pytest.raises(ValueError, match="word c needs a note"):
        Outer.model_validate({"word": "c"})
    assert "low" in problems({"word": "c", "low": "x"})


def test_markers_are_called_in_order() -> None:
    """The raw value is prepared, parsed or checked, then the result is checked."""

    def parse(value: object) -> int:
        if value == "!":
            raise WrongForm("must be text")
        return len(str(value))

    kind = Annotated[int, Before(lambda value: f"{value}!"), Parse(parse), After(lambda value: value * 10)]
    assert convert("ab", kind) == 30
    with pytest.raises(ValueError, match="must be text, not ''"):
        convert("", kind)


def test_options_of_a_table_have_their_documentation() -> None:
    """Options keep the order of the class; a type's markers and those of a union are all there."""
    options = Inner.options()
    assert list(options) == ["name", "count"]
    assert (options["name"].required, options["count"].required) == (True, False)
    assert options["count"].default == 1
    assert options["name"].doc == Doc("Name.", examples=["x"])
    assert options["count"].doc.zero == "none"
    assert Outer.options() is Outer.options()


def test_unknown_key_is_explained() -> None:
    """The key that was probably meant, or all keys."""
    assert no_such_key("na", ["name", "size"]) == "there is no such key; did you mean name?"
    assert no_such_key("zzz", ["size", "name"]) == "there is no such key; there are name, size"
