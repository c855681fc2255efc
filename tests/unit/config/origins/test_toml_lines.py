"""Lines of tables and keys: each is found, whatever strings and arrays are around it."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from mirror.config.origins.toml_lines import toml_lines

SAMPLE = '''\
# [server]
[cache]
dir = "/srv # no comment"  # a comment
pins = [
  "a", # ]
  """
  x = 1
  """,
]
"odd = key" = 1
[[upstream]]
name = "a.test"
  [[upstream.accounts]]
  username = 'it'
  [[upstream.accounts]]
  username = "\\"me"
[[upstream]]
name = "b.test"
accounts = [{ username = "inline" }]
[[upstream.sources]]
url.deep = 3
'''


def test_toml_lines_of_tables_keys_and_lists() -> None:
    """Comments, texts of several lines and brackets in them count for nothing."""
    lines = toml_lines(SAMPLE)
    tomllib.loads(SAMPLE)
    assert lines["cache",] == 2
    assert (lines["cache", "dir"], lines["cache", "pins"], lines["cache", "odd = key"]) == (3, 4, 10)
    assert (lines["upstream", 0], lines["upstream", 0, "name"]) == (11, 12)
    assert lines["upstream", 0, "accounts", 1, "username"] == 16
    assert (lines["upstream", 1, "accounts"], lines["upstream", 1, "sources", 0, "url"]) == (19, 21)
    assert ("cache", "x") not in lines


VALUES = st.sampled_from(
    ["1", '"a"', "'b'", "[1,\n 2]", '"""\n[x]\n"""', "'''\ny = 1\n'''", '{ a = "]" }', "[[1], # [\n[2]]"]
)


@given(st.lists(VALUES, max_size=12))
def test_toml_lines_agree_with_the_text(values: list[str]) -> None:
    """The line that is told begins with the key."""
    text = "".join(f"# {number}\nkey{number} = {each}\n" for number, each in enumerate(values))
    tomllib.loads(text)
    lines = toml_lines(text)
    assert len(lines) == len(values)
    for (key,), line in lines.items():
        assert text.splitlines()[line - 1].startswith(f"{key} = ")


@given(st.text(max_size=300))
def test_toml_lines_end_for_any_text(text: str) -> None:
    """A text that is no TOML is none of a loader; even so, nothing is raised."""
    toml_lines(text)
