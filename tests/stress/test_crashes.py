"""Invariant 10: a crash at any line leaves nothing that needs a repair step before the next start."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_crash_at_every_step(tmp_path: Path) -> None:
    """Each operation is killed before each disk call, and loses what was not synced.

    The operations: adopt, put, discard, evict, quarantine, open. After each crash no damage is found and no
    wrong byte is read; the operation can be repeated at once, and leftovers are found to be leftovers.
    """
    command = [sys.executable, "-m", "tests.stress.killing", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    steps = dict(line.split(": ") for line in done.stderr.splitlines() if line.endswith(" steps"))
    assert int(steps["adopt"].split()[0]) > 20
