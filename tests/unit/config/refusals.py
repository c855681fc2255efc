"""Errors of configuration files."""

from pathlib import Path

import pytest

from mirror.config.loader import ConfigError, load


def refusal(folder: Path, text: str) -> str:
    """Return the error about a file with this text."""
    file = folder / "mirror.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file, {"HOME": "/home/me"}, {})
    return str(error.value)
