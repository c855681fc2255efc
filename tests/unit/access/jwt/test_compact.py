"""The compact form of tokens: bounded, and refused with one sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access.jwt.compact import LONGEST, JwtRefused, looks_like_jwt, parse
from tests.fakes.issuer import GITLAB, raw_token, signed


def test_jwt_is_split() -> None:
    """Header and claims are there, and the token is in no text about it."""
    text = signed(GITLAB)
    token = parse(text)
    assert token.header["alg"] == "RS256"
    assert token.claims == GITLAB
    assert looks_like_jwt(text)
    assert text not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "eyJ.eyJ.",
        "a.b.c.d",
        "e30.e30.é",
        "e30.e30.x\n",
        "W10.e30.x",
        "e30.W10.x",
        "e30.bm8.x",
        "e30." + "A" * LONGEST + ".x",
        raw_token({"alg": "RS256"}, {"a": list(range(5000))}),
        raw_token({str(each): 0 for each in range(100)}, {}),
    ],
)
def test_jwt_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(JwtRefused) as refused:
        parse(text)
    assert len(str(refused.value)) < 100


@given(st.text() | st.text("eyJhbGciOiJub25lIn0._-AZ09=", max_size=200))
def test_jwt_parser_takes_any_text(text: str) -> None:
    looks_like_jwt(text)
    try:
        parse(text)
    except JwtRefused:
        return
