"""Notes about doubtful values, as `config check` prints them."""

from pathlib import Path

import pytest

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
