"""hosts.toml with the mirror as its first host."""

import tomllib

import pytest

from mirror.setup.hosts_toml import HostsFile, first_table, hosts_text
from mirror.setup.plan import SetupError

ENTRY = HostsFile("http://m:5000", ("pull", "resolve"))

OTHERS = """# Ours since 2019.
server = "https://registry-1.docker.io"
client = [
  ["a.cert", "a.key"],
]

# The branch office.
[host."https://branch:5000"]
  capabilities = ["pull"] # no tags
  [host."https://branch:5000".header]
    X = "1"

[host."https://third"]
  skip_verify = true
"""


def test_hosts_toml_new() -> None:
    """A new file has the mirror alone."""
    assert hosts_text(None, ENTRY, "x") == '[host."http://m:5000"]\n  capabilities = ["pull", "resolve"]\n'
    assert hosts_text("\n", HostsFile("https://m:1", ("pull",), "/ca"), "x").endswith('  ca = "/ca"\n')


def test_hosts_toml_puts_the_mirror_first_and_keeps_the_rest() -> None:
    """Other hosts, keys and comments stay as they are, below the mirror."""
    text = hosts_text(OTHERS, ENTRY, "x")
    assert list(tomllib.loads(text)["host"]) == ["http://m:5000", "https://branch:5000", "https://third"]
    at = OTHERS.index("# The branch")
    assert text.startswith(OTHERS[:at])
    assert text.endswith(OTHERS[at:])
    assert hosts_text(text, ENTRY, "x") == text


def test_hosts_toml_replaces_its_own_entry() -> None:
    """Another capability, or another place in the order, is put right."""
    text = hosts_text(OTHERS, HostsFile(ENTRY.url, ("pull", "resolve", "referrers")), "x")
    again = hosts_text(text, ENTRY, "x")
    assert tomllib.loads(again)["host"]["http://m:5000"] == {"capabilities": ["pull", "resolve"]}
    last = OTHERS + "\n" + ENTRY.table()
    assert next(iter(tomllib.loads(hosts_text(last, ENTRY, "x"))["host"])) == "http://m:5000"
    assert "# no tags" in hosts_text(last, ENTRY, "x")


def test_hosts_toml_keeps_what_the_own_entry_says_besides() -> None:
    """A header that an operator has added to the mirror's entry stays."""
    text = ENTRY.table() + '  [host."http://m:5000".header]\n    X = "1"\n'
    assert hosts_text(text, ENTRY, "x") == text


@pytest.mark.parametrize("text", ["[host", "host = 1\n", "x = 'unclosed"])
def test_hosts_toml_that_is_wrong_is_named(text: str) -> None:
    """A file that containerd ignores is not built upon."""
    with pytest.raises(SetupError, match=r"/etc/x/hosts.toml"):
        hosts_text(text, ENTRY, "/etc/x/hosts.toml")


def test_first_table_is_no_bracket_of_a_list() -> None:
    """A line of a list that begins with a bracket is not a table; without a table it is the end."""
    assert OTHERS[first_table(OTHERS) :].startswith("# The branch")
    assert first_table("a = 1\n") == len("a = 1\n")
    assert first_table("# only\n# comments\n[a]\n") == 0
