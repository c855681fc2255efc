"""Temporary folders that other users can reach."""

from pathlib import Path
from tempfile import gettempdir


def open_to_all(folder: Path) -> None:
    """Let every user search a folder of pytest and those above it, which pytest makes for its user alone."""
    top = Path(gettempdir())
    for each in (folder, *folder.parents):
        if each != top and each.is_relative_to(top):
            each.chmod(0o755)
