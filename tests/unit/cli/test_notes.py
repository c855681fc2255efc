"""Notes about doubtful values, as `config check` prints them."""

from pathlib import Path

import pytest

from mirror.cli.notes import private_notes, secret_notes
from mirror.config.loader import load
from tests.unit.cli.test_app import run


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ('[[upstream]]\nname = "ghcr.io"\n', "ghcr.io is the default upstream"),
        ("[cache]\nmax_size = 50\n", "cache.max_size is 50 bytes"),
        ("[cache]\nmax_size = 0\n", ""),
        ('[[upstream]]\nname = "docker.io"\n[[upstream]]\nname = "ghcr.io"\n', ""),
    ],
)
def test_config_check_notes_doubtful_values(tmp_path: Path, content: str, note: str) -> None:
    """The configuration can be used, and a note says what may be a mistake."""
    file = tmp_path / "mirror.toml"
    file.write_text(content)
    done = run("config", "check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")
    assert done.stderr.startswith(f"Note: {note}") if note else done.stderr == ""


ACCOUNT = '[[upstream]]\nname = "quay.io"\nusername = "me"\npassword = "hunter2"\n'
NAMED = '[[rule]]\nname = "office"\neffect = "allow"\nnetworks = ["10.0.0.0/8"]\n'


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("", ""),
        ('[[upstream]]\nname = "quay.io"\nprivate = "everybody"\n', ""),
        (ACCOUNT, "what is private at quay.io is served to nobody"),
        (ACCOUNT + NAMED, ""),
        (ACCOUNT + NAMED.replace("allow", "deny"), "what is private at quay.io is served to nobody"),
        (
            f'{ACCOUNT}private = "everybody"\n',
            "every client can pull whatever the accounts at quay.io can read",
        ),
        (
            '[[upstream]]\nname = "quay.io"\nprivate = "as-upstream"\n',
            "clients send their passwords for quay.io",
        ),
    ],
)
def test_notes_say_who_gets_private_content(tmp_path: Path, content: str, note: str) -> None:
    file = tmp_path / "mirror.toml"
    file.write_text(content)
    notes = private_notes(load(str(file), {}, {}).config)
    assert [each[: len(note)] for each in notes] == ([note] if note else [])


def test_notes_name_a_file_of_users_that_everybody_can_read(tmp_path: Path) -> None:
    users, file = tmp_path / "users", tmp_path / "mirror.toml"
    users.write_text("")
    file.write_text(f"[access]\nhtpasswd = '{users}'\n")
    for mode, count in ((0o644, 1), (0o640, 0)):
        users.chmod(mode)
        notes = secret_notes(load(str(file), {}, {}).config)
        assert len(notes) == count
        assert all(str(users) in each for each in notes)
    assert secret_notes(load(None, {}, {}).config) == []
