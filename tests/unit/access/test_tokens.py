"""Tokens: their form, their checksum, what is stored, what they permit."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access.identity import Restriction
from mirror.access.rules import Action
from mirror.access.tokens import (
    NAME,
    TokenEntry,
    TokenTable,
    digest_of,
    is_token,
    is_well_formed,
    new_secret,
    redacted,
    with_checksum,
)
from mirror.oci.reference import COMPONENT


def test_token_secret_has_a_prefix_and_256_random_bits() -> None:
    """Each is another one; one can stand in a path, a header, a password and a repository's name."""
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert re.fullmatch(r"rmt_[a-z2-7]{59}", secret)
        assert COMPONENT.fullmatch(secret)
        assert is_token(secret)
        assert is_well_formed(secret)


@pytest.mark.parametrize("position", range(4, 63, 7))
def test_token_checksum_tells_a_typing_error(position: int) -> None:
    """One wrong character, one that is missing, one too many: all are told without a table."""
    secret = new_secret()
    other = "a" if secret[position] != "a" else "b"
    for wrong in (
        secret[:position] + other + secret[position + 1 :],
        secret[:position] + secret[position + 1 :],
        secret[:position] + "a" + secret[position:],
    ):
        assert not is_well_formed(wrong)
    assert not is_well_formed(secret.upper())


@given(st.text())
def test_token_parser_takes_any_text(text: str) -> None:
    """Nothing but a secret is one, and no text is an error."""
    table = TokenTable()
    for each in (text, f"rmt_{text}", with_checksum(f"rmt_{text}")):
        assert table.find(each) is None
        redacted(each)
    assert not is_well_formed(text)


def test_token_table_finds_the_secret_and_no_other() -> None:
    """The entry has a digest in place of the secret."""
    secret = new_secret()
    entry = TokenEntry("ci", digest_of(secret), 1.0)
    table = TokenTable([entry])
    assert len(table) == 1
    assert table.find(secret) == entry
    assert table.find(new_secret()) is None
    assert table.find(entry.sha256) is None
    assert table.find("") is None
    assert secret not in repr(entry)
    assert entry.principal == "token:ci"


def test_token_expiry() -> None:
    """The moment of expiry is no longer within the life of the token."""
    assert not TokenEntry("a", "", 0.0).has_expired(1e12)
    entry = TokenEntry("a", "", 0.0, expires=10.0)
    assert [entry.has_expired(now) for now in (9.9, 10.0, 11.0)] == [False, True, True]


def test_token_limits_are_beside_the_rules() -> None:
    """A token without limits has none."""
    assert TokenEntry("a", "", 0.0).restrictions == ()
    narrow = TokenEntry("a", "", 0.0, None, ("docker.io/library/*",), (Action.PULL,))
    assert narrow.restrictions == (Restriction("token:a", ("docker.io/library/*",), (Action.PULL,)),)


def test_token_secrets_are_taken_out_of_a_text() -> None:
    """Whole ones, wrong ones and parts."""
    secret = new_secret()
    assert redacted(f"/t/{secret}/v2/ rmt_abc") == "/t/rmt_.../v2/ rmt_..."


@pytest.mark.parametrize("name", ["ci", "ci-runner", "a.b_c", "7", "A" * 64])
def test_token_name(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a*", "a/b", "a:b", "ä", "A" * 65, "a\n"])
def test_token_name_refused(name: str) -> None:
    """A name is no pattern, and is one word in a table and a log."""
    assert not NAME.fullmatch(name)
