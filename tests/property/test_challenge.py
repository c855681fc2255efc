"""The parser of challenges, over any header."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.challenge import parse_challenges

pieces = st.sampled_from(["Bearer", "Basic", " ", ",", "=", '"', "\\", "realm", "x", "==", "é", "\t"])


@given(st.lists(st.one_of(st.text(max_size=30), st.lists(pieces, max_size=30).map("".join)), max_size=3))
def test_parse_challenges_accepts_any_header(headers: list[str]) -> None:
    """Parsing ends without an exception, and names are in lower case."""
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
        assert all(name == name.lower() for name in challenge.parameters)
