"""The text of a lease's holder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.shared.lease_text import MAX_BYTES, format_holder, new_holder, parse_holder


@pytest.mark.parametrize(
    "address", ["", "http://10.0.0.1:5001", "https://node-3.lan:5001", "http://[fd00::1]:1"]
)
def test_holder_as_text_and_back(address: str) -> None:
    """Another mirror reads what this one writes; each claim is unique."""
    holder = new_holder(address)
    assert parse_holder(format_holder(holder).encode()) == holder
    assert new_holder(address) != holder


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x",
        b"0" * 32 + b" file:///etc/passwd",
        b"0" * 32 + b" http://a:1/path",
        b"0" * 32 + b" http://u:p@a:1",
        b"0" * 32 + b" http://a:1\nb",
        b"0" * 32 + b" http://a:99999",
        b"0" * 32 + b" http://xn--a:80",
        b"A" * 32 + b" ",
        b"0" * 32 + b" " + b"a" * MAX_BYTES,
        b"\xff" * 33,
    ],
)
def test_holder_of_other_text_is_none(text: bytes) -> None:
    """Text that others wrote leads to no address."""
    assert parse_holder(text) is None


@given(st.binary(max_size=600))
def test_holder_of_any_bytes_is_bounded(text: bytes) -> None:
    """No input raises, and what is accepted is written the same."""
    holder = parse_holder(text)
    assert holder is None or format_holder(holder).encode() == text
