"""Verification: each cached file is checked against its digest, from where an interrupted check stopped."""

import time
from collections.abc import Iterator
from pathlib import Path

from mirror.store.blobs.fsck import HARMLESS, Damage, Finding, Fsck, FsckCursor, FsckStep
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.agreement import Agreement
from mirror.util.progress.amounts import ProgressAmount
from mirror.util.rate_limiter import RateLimiter

# How often the cursor is written, in seconds.
SAVE_SECONDS = 5.0


class Verification:
    """One check of a cache folder, and its findings. For one thread."""

    def __init__(self, folder: CacheDirectory, limiter: RateLimiter, *, quick: bool, repair: bool) -> None:
        """`quick`: sizes only. `repair`: wrong files go to quarantine. `limiter`: of the bytes read."""
        self._folder = folder
        self._place = folder.path / "verify.cursor"
        self._limiter = limiter
        self._repair = repair
        self.cursor = FsckCursor.load(self._place, quick=quick)
        self.findings: list[Finding] = []
        held, count = folder.blobs.stats()
        self._total = count if quick else held
        self._fsck = Fsck(folder.path / "blobs", folder.blobs, self.cursor, repair=repair)

    @property
    def progress(self) -> ProgressAmount:
        """The progress so far: in blobs if the check is quick, else in bytes."""
        return ProgressAmount(self.cursor.checked if self.cursor.quick else self.cursor.bytes, self._total)

    @property
    def quarantine(self) -> Path:
        """The folder that wrong files are moved to."""
        return self._folder.path / "quarantine"

    def steps(self) -> Iterator[FsckStep]:
        """Yield each step. The cursor is written now and then, and when the check is interrupted."""
        saved = time.monotonic()
        try:
            for step in self._fsck.steps():
                if step.finding is not None:
                    self.findings.append(step.finding)
                yield step
                time.sleep(self._limiter.pause(step.read))
                if time.monotonic() - saved > SAVE_SECONDS:
                    self.cursor.save(self._place)
                    saved = time.monotonic()
        except BaseException:
            self.cursor.save(self._place)
            raise
        for finding in self._check_classes():
            self.findings.append(finding)
            self.cursor.wrong += finding.damage not in HARMLESS
            self.cursor.leftovers += finding.damage in HARMLESS
            yield FsckStep(finding=finding)
        if self._repair:
            self._folder.recovery.finish_rebuild()
        self._place.unlink(missing_ok=True)

    def _check_classes(self) -> Iterator[Finding]:
        """Yield blobs whose retention does not agree with the links of hosted repositories."""
        agreement, repair = Agreement(self._folder), self._repair
        for text in agreement.evictable(repair=repair):
            yield Finding(text, Damage.EVICTABLE, "retained" if repair else None)
        for digest in agreement.unlinked(repair=repair):
            yield Finding(str(digest), Damage.UNLINKED, "made evictable" if repair else None)
