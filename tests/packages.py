"""Rules about every file, in a test for each package: pytest's own part of a test takes some milliseconds."""

from collections.abc import Iterable
from pathlib import Path

import pytest


def parametrize_by_package(metafunc: pytest.Metafunc, files: Iterable[Path], root: Path, depth: int) -> None:
    """Give `paths` the files of each package in turn, the first `depth` parts of a path below `root`.

    With `-k` each file is a test of its own, so that `-k mirror/store/lock.py` selects a file.
    """
    groups: dict[str, list[Path]] = {}
    for path in files:
        parts = path.relative_to(root).parts
        count = len(parts) if metafunc.config.getoption("keyword") else depth
        groups.setdefault("/".join(parts[:count]), []).append(path)
    metafunc.parametrize("paths", list(groups.values()), ids=list(groups))
