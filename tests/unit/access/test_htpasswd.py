"""Files of users: what is taken, and what is refused with its line and its remedy."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access import htpasswd
from mirror.access.htpasswd import parse_htpasswd, read_htpasswd

BCRYPT = "$2y$05$" + "./Ab9" * 10 + "xyz"
ARGON2 = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$RdescudvJCsgt3ub+b4dWRWJTmaaJObG"


def test_users_of_a_file(tmp_path: Path) -> None:
    """Empty lines, comments, spaces around a line and Windows line ends do not count."""
    file = tmp_path / "users"
    file.write_bytes(f"# the team\r\n\r\nalice:{BCRYPT}\r\n  bob:{ARGON2}  \nzoë:{BCRYPT}".encode())
    assert read_htpasswd(file) == {"alice": BCRYPT, "bob": ARGON2, "zoë": BCRYPT}


@pytest.mark.parametrize("start", ["$2a$", "$2b$", "$2x$", "$2y$"])
def test_all_names_of_bcrypt_are_taken(start: str) -> None:
    assert parse_htpasswd(f"alice:{start}{BCRYPT[4:]}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alice", "not USER:HASH"),
        ("alice:", "not USER:HASH"),
        (f":{BCRYPT}", "not USER:HASH"),
        (
            "alice:$apr1$salt$0123456789012345678901",
            "MD5 ($apr1$); bcrypt and argon2 are taken: `htpasswd -B",
        ),
        ("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "SHA-1 ({SHA})"),
        ("alice:$5$salt$hash", "SHA-256 ($5$)"),
        ("alice:$6$salt$hash", "SHA-512 ($6$)"),
        ("alice:rl.3StKT.4T8M", "no hash that is known"),
        ("alice:secret", "no hash that is known"),
        (f"alice:{BCRYPT[:-1]}", "no hash that is known"),
        (f"alice:$2y$03${BCRYPT[7:]}", "a cost of 03"),
        (f"alice:$2y$31${BCRYPT[7:]}", "a cost of 31"),
        (f"alice:{ARGON2.replace('65536', '4194304')}", "m=4194304,t=3,p=4"),
        (f"alice:{ARGON2.replace('p=4', 'p=0')}", "p=0"),
        (f"al\x07ice:{BCRYPT}", "unprintable"),
        (f"{'x' * 256}:{BCRYPT}", "more than 255"),
        (f"bob:{BCRYPT}", "user 'bob' is there twice"),
    ],
)
def test_wrong_line_is_refused_by_its_number(line: str, words: str) -> None:
    with pytest.raises(ValueError, match="line 3: ") as refused:
        parse_htpasswd(f"# users\nbob:{BCRYPT}\n{line}\n")
    assert words in str(refused.value)


def test_refusal_does_not_repeat_what_may_be_a_password() -> None:
    with pytest.raises(ValueError, match="no hash") as refused:
        parse_htpasswd("alice:hunter2")
    assert "hunter2" not in str(refused.value)


def test_file_that_is_too_large_or_no_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "users"
    file.write_bytes(b"alice:\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_htpasswd(file)
    monkeypatch.setattr(htpasswd, "FILE_BYTES", 5)
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        read_htpasswd(file)


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    """Else the first user could not log in, and a rule that denies it would be about nobody."""
    file = tmp_path / "users"
    file.write_text(f"alice:{BCRYPT}\n", encoding="utf-8-sig")
    assert read_htpasswd(file) == {"alice": BCRYPT}


@given(st.text())
def test_no_text_is_an_unexpected_error(text: str) -> None:
    try:
        users = parse_htpasswd(text)
    except ValueError as error:
        assert str(error).startswith("line ")  # noqa: PT017  # either is right
    else:
        assert all(users)


def test_file_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("")
    file.chmod(0o646)
    with pytest.raises(ValueError, match="chmod o-rwx"):
        read_htpasswd(file)
    file.chmod(0o644)
    assert read_htpasswd(file) == {}
