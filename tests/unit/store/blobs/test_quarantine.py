"""The quarantine keeps files that were found wrong, up to a limit."""

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs import quarantine
from mirror.store.blobs.quarantine import Quarantine


def wrong_file(folder: Path, data: bytes, size: int = 3) -> Path:
    digest = Digest.of(data)
    path = folder / f"{digest.encoded[2:]}.00000000"
    path.write_bytes(bytes(size))
    return path


def test_quarantine_takes_a_file_and_knows_its_digest(tmp_path: Path) -> None:
    """A file that is gone meanwhile is no error."""
    kept = Quarantine(tmp_path / "quarantine")
    assert not kept.holds(Digest.of(b"one"))
    path = wrong_file(tmp_path, b"one")
    status = path.stat()
    other = wrong_file(tmp_path, b"two").stat()
    kept.add(path)
    assert (kept.holds(Digest.of(b"one"), status), kept.holds(Digest.of(b"one"), other)) == (True, False)
    kept.add(path)
    assert (path.exists(), kept.holds(Digest.of(b"one")), kept.holds(Digest.of(b"two"))) == (
        False,
        True,
        False,
    )


def test_quarantine_removes_the_oldest_files_beyond_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest file stays whatever its size: the operator may want to look at it."""
    monkeypatch.setattr(quarantine, "MOST_BYTES", 10)
    kept = Quarantine(tmp_path / "quarantine")
    for name, size in ((b"one", 6), (b"two", 6), (b"three", 4), (b"four", 1000)):
        kept.add(wrong_file(tmp_path, name, size))
    assert [kept.holds(Digest.of(each)) for each in (b"one", b"two", b"three", b"four")] == [
        False,
        True,
        True,
        True,
    ]
