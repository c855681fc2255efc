"""Temporary folders that other users can reach."""

from pathlib import Path

from tests.leftovers import OUTSIDE


def open_to_all(folder: Path) -> None:
    """Let every user search a folder of pytest and those above it, which pytest makes for its user alone."""
    for each in (folder, *folder.parents):
        if each != OUTSIDE and each.is_relative_to(OUTSIDE):
            each.chmod(0o755)
