"""Verification: findings, and a cursor that outlives an interruption."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.manage.verification import Verification
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.util.progress.amounts import ProgressAmount
from mirror.util.rate_limiter import RateLimiter
from tests.fakes.cached import open_folder, put_blob
from tests.unit.store.blobs.test_blobs import file_of

CONTENTS = [b"one", b"three", b"seven"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    with closing(open_folder(tmp_path / "cache")) as opened:
        for data in CONTENTS:
            put_blob(opened, data)
        yield opened


def verification(folder: CacheDirectory, *, quick: bool = False, repair: bool = False) -> Verification:
    return Verification(folder, RateLimiter(0), quick=quick, repair=repair)


def test_verification_counts_bytes_or_blobs(folder: CacheDirectory) -> None:
    """A quick check reads nothing."""
    for quick, total in ((False, 13), (True, 3)):
        run = verification(folder, quick=quick)
        assert run.progress == ProgressAmount(0, total)
        assert sum(step.read for step in run.steps()) == (0 if quick else 13)
        assert run.progress == ProgressAmount(total, total)
        assert not (folder.path / "verify.cursor").exists()


def test_verification_goes_on_after_an_interruption(folder: CacheDirectory) -> None:
    """A generator that is closed, and one in which an error is raised, leave their place."""
    run = verification(folder)
    steps = run.steps()
    while run.cursor.checked < 1:
        next(steps)
    assert isinstance(steps, Iterator)
    steps.close()  # type: ignore[attr-defined]
    again = verification(folder)
    assert again.cursor.checked == 1
    assert sum(step.read for step in again.steps()) == 13 - run.progress.done


def test_verification_repairs(folder: CacheDirectory) -> None:
    """A wrong file is found, and moved to the quarantine."""
    path = file_of(folder.path, Digest.of(b"three"))
    path.chmod(0o600)
    path.write_bytes(b"eerht")
    for repair in (False, True):
        run = verification(folder, repair=repair)
        assert [*run.steps()]
        assert [each.quarantined for each in run.findings] == [repair]
    assert len(list(run.quarantine.iterdir())) == 1
