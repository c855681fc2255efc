"""Notes about doubtful values, as `config check` prints them."""

from pathlib import Path

import pytest

from mirror.cli.notes import private_notes
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
