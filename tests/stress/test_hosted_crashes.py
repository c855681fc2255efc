"""Invariants 8 and 10 for pushes: a crash at any line leaves nothing visible half-done."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly


def test_push_crash_at_every_step(tmp_path: Path) -> None:
    """Pushes, deletions and collections are killed before each disk call, and can be repeated at once.

    A tag is there with its manifest, a manifest with its blobs and its place among referrers, or none of
    them; what is linked is retained; all sums are right; nothing stays retained without a link.
    """
    command = [sys.executable, "-m", "tests.stress.hosted_killing", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    steps = dict(line.split(": ") for line in done.stderr.splitlines() if line.endswith(" steps"))
    assert int(steps["push"].split()[0]) > 20
