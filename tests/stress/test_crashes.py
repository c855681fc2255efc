"""Invariant 10: a crash at any line leaves nothing that needs a repair step before the next start."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_killed_at_every_step(tmp_path: Path) -> None:
    """Adopting, keeping, discarding, evicting, setting aside, opening: killed before each thing that is asked
    of the disk, and with what was not synced lost. Nothing wrong is found after it, nothing wrong is read, it
    can be done again at once, and what is left over is found to be that.
    """
    command = [sys.executable, "-m", "tests.stress.killing", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    steps = dict(line.split(": ") for line in done.stderr.splitlines() if line.endswith(" steps"))
    assert int(steps["adopt"].split()[0]) > 20
