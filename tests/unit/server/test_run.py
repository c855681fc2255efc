"""The imports of the workers' parent; tests/e2e/test_restarts.py runs whole mirrors."""

import subprocess
import sys
from pathlib import Path

from tests.programs import without_coverage

# Prints what the parent has imported when it would fork its only worker.
SCRIPT = """
import os, sys
from mirror.cli import app
from mirror.server import supervisor

def start(*_):
    print(*sorted(sys.modules), flush=True)
    os._exit(0)

supervisor.Supervisor._start = start
app.main()
"""

# What only a worker needs: the parent stays in memory as long as the mirror runs.
NOT_OF_A_PARENT = {"aiohttp", "asyncio", "diskcache", "sqlite3", "ssl", "structlog", "mirror.service"}


def test_parent_of_one_worker_is_small(tmp_path: Path) -> None:
    """The parent imports nothing of what serves: its worker does, after the fork."""
    flags = ["serve", "--listen", "127.0.0.1:0", "--cache-dir", str(tmp_path / "cache"), "--config", ""]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *flags],
        env=without_coverage(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = set(done.stdout.split())
    assert "mirror.server.supervisor" in imported
    assert imported & NOT_OF_A_PARENT == set()
