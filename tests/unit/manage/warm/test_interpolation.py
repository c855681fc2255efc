"""Variables in Compose files."""

import pytest

from mirror.manage.warm.interpolation import Unset, interpolate, read_env

VALUES = {"TAG": "3.20", "EMPTY": "", "REG": "quay.io"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("alpine", "alpine"),
        ("alpine:$TAG", "alpine:3.20"),
        ("${REG}/x:${TAG}", "quay.io/x:3.20"),
        ("x:${NO:-1.0}", "x:1.0"),
        ("x:${EMPTY:-1.0}", "x:1.0"),
        ("x${EMPTY-1.0}", "x"),
        ("x:${NO-1.0}", "x:1.0"),
        ("x:${TAG:-1.0}", "x:3.20"),
        ("x:${TAG:?needed}", "x:3.20"),
        ("x${TAG:+:$TAG}", "x:3.20"),
        ("x${NO:+:$TAG}", "x"),
        ("x:${NO:-${OTHER:-${TAG}}}", "x:3.20"),
        ("x:${NO:-a}b}", "x:ab}"),
        ("x$$TAG", "x$TAG"),
    ],
)
def test_variables_are_replaced(text: str, value: str) -> None:
    assert interpolate(text, VALUES) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x:$NO", "NO is not set: give a value with --env NO=VALUE"),
        ("x:${NO}", "NO is not set: give a value with --env NO=VALUE"),
        ("x:${NO:?give a tag}", "NO is not set: give a tag; give a value with --env NO=VALUE"),
        ("x:${EMPTY:?}", "EMPTY is not set"),
        ("x:${TAG", "not closed"),
        ("x:$", "without the name"),
        ("x:${TAG/a/b}", "is not understood"),
        ("${A:-" * 30 + "}" * 30, "nested too deep"),
    ],
)
def test_variables_without_a_value_are_named(text: str, message: str) -> None:
    with pytest.raises(Unset, match=message):
        interpolate(text, VALUES)


def test_env_file() -> None:
    """Quotes, comments and `export` are as Compose reads them."""
    text = "# c\nA=1\nexport B = two # x\nC='a # b'\nD=\"q\"\nnothing\nE=\n"
    assert read_env(text) == {"A": "1", "B": "two", "C": "a # b", "D": "q", "E": ""}
