"""Installed packages: floors that are tested, and a lock with hashes."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LOCK = (ROOT / ".ci" / "requirements.txt").read_text()


def version(text: str) -> tuple[int, ...]:
    """Parse a version of numbers only."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def floors() -> dict[str, str]:
    """Return the lowest allowed version of each package the mirror needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return dict(re.sub(r"\[.*\]", "", each).split(">=") for each in project["dependencies"])


def locked() -> dict[str, str]:
    """Return the pinned version of each package, by its normalised name."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+) \\$", LOCK, re.MULTILINE))


def test_floors_are_the_tested_versions() -> None:
    """A package older than the one the tests run with is refused, to the minor version."""
    pinned = locked()
    for name, floor in floors().items():
        assert version(pinned[name])[: len(version(floor))] == version(floor), (
            f"{name}: {floor}, {pinned[name]}"
        )


def test_locked_packages_have_hashes() -> None:
    """Each pinned package has at least one hash, and the lock names no place to get packages from."""
    entries = re.split(r"^(?=[a-z0-9._-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked()) > 20
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"^\s*--(index|extra|find|trusted)", LOCK, re.MULTILINE)
