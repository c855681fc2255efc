"""The files of tokens: read as written, whole or not at all."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.access.rules import Action
from mirror.access.tokens import TokenEntry, digest_of, new_secret
from mirror.store.tokens import token_file
from mirror.store.tokens.token_file import read_tokens, read_uses, signature, write_tokens, write_uses

SECRET = new_secret()
ONE = TokenEntry("one", digest_of(SECRET), 1.5)
TWO = TokenEntry("two", digest_of("x"), 2.5, 9.5, ("docker.io/*",), (Action.PULL,))


def test_token_file_is_read_as_written(tmp_path: Path) -> None:
    """The order is by name; no other user can read the file, and no secret is in it."""
    path = tmp_path / "tokens"
    assert (read_tokens(path), signature(path)) == ([], None)
    write_tokens(path, [TWO, ONE])
    assert read_tokens(path) == [ONE, TWO]
    assert os.listdir(tmp_path) == ["tokens"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert SECRET not in path.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"name": "a", "sha256": "short", "created": 1}',
        '{"name": "a*", "sha256": "' + "0" * 64 + '", "created": 1}',
        '{"name": "a", "sha256": "' + "0" * 64 + '", "created": "soon"}',
        "\0\udcff",
    ],
)
def test_token_file_skips_an_unreadable_line(tmp_path: Path, line: str) -> None:
    """The line costs no other one; the log has its number."""
    path = tmp_path / "tokens"
    write_tokens(path, [ONE])
    with path.open("ab") as raw:
        raw.write(line.encode(errors="surrogateescape") + b"\n")
    with capture_logs() as logs:
        assert read_tokens(path) == [ONE]
    assert [each["line"] for each in logs] == [2]


def test_token_file_is_bounded_and_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another program has put there is an error, not a wait and not a gigabyte."""
    path = tmp_path / "tokens"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        read_tokens(path)
    path.unlink()
    write_tokens(path, [ONE])
    monkeypatch.setattr(token_file, "LONGEST", 10)
    with pytest.raises(OSError, match="longer"):
        read_tokens(path)


def test_token_file_signature_tells_a_replaced_file(tmp_path: Path) -> None:
    """A file with the same size is another one if it was replaced."""
    path = tmp_path / "tokens"
    write_tokens(path, [ONE])
    first = signature(path)
    assert first == signature(path)
    write_tokens(path, [ONE])
    assert signature(path) != first


def test_token_uses_are_read_as_written(tmp_path: Path) -> None:
    """A line that is broken costs no other one."""
    path = tmp_path / "token-uses"
    assert read_uses(path) == {}
    write_uses(path, {ONE.sha256: 3.5})
    with path.open("a") as file:
        file.write("no json\n[]\n{}\n")
    assert read_uses(path) == {ONE.sha256: 3.5}
