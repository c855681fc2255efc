"""Passwords are verified as the programs that hashed them do."""

import bcrypt
import pytest
from argon2 import PasswordHasher, Type
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.access.htpasswd import parse_htpasswd
from mirror.web.identity.passwords import is_password, unknown_user


def bcrypted(password: bytes) -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()


HASHED = bcrypted(b"secret")
HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.mark.parametrize("start", ["$2a$", "$2b$", "$2x$", "$2y$"])
def test_bcrypt_by_all_its_names(start: str) -> None:
    hashed = start + HASHED[4:]
    assert is_password(hashed, "secret")
    assert not is_password(hashed, "Secret")
    assert not is_password(hashed, "")


@pytest.mark.parametrize("kind", [Type.D, Type.I, Type.ID])
def test_argon2_of_all_kinds(kind: Type) -> None:
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=kind).hash("secret")
    assert parse_htpasswd(f"alice:{hashed}")
    assert is_password(hashed, "secret")
    assert not is_password(hashed, "secret ")


def test_bcrypt_reads_72_bytes_as_htpasswd_does() -> None:
    """The library raises for a longer password, which would be an error of the mirror."""
    hashed = bcrypted(b"x" * 72)
    assert is_password(hashed, "x" * 72)
    assert is_password(hashed, "x" * 80)
    assert not is_password(hashed, "x" * 71)
    assert not is_password(hashed, "x" * 2000)


def test_password_is_utf_8() -> None:
    assert is_password(bcrypted("pä€".encode()), "pä€")
    assert is_password(HASHER.hash("pä€"), "pä€")


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=100))
def test_no_password_is_an_error(password: str) -> None:
    assert not is_password(HASHED, f"{password}!")
    assert not is_password(HASHER.hash("secret"), f"{password}!")


@pytest.mark.parametrize(
    "hashed", ["$2b$04$" + "!" * 53, "$2b$04$" + "." * 53, "$argon2x$a$b", "$argon2id$v=19$m=8"]
)
def test_hash_that_is_none_has_no_password(hashed: str) -> None:
    assert not is_password(hashed, "secret")


@pytest.mark.parametrize("like", [None, HASHED, HASHER.hash("secret")], ids=["none", "bcrypt", "argon2"])
def test_unknown_user_costs_as_much_as_a_known_one(like: str | None) -> None:
    hashed = unknown_user(like)
    assert parse_htpasswd(f"alice:{hashed}")
    assert not is_password(hashed, "secret")
    if like is not None:
        assert hashed.split("$")[:3] == like.split("$")[:3]
        assert len(hashed) == len(like)
        assert hashed != like
