"""The supervisor's parts; tests/e2e has its processes: test_workers.py and test_restarts.py."""

import subprocess
import sys
from pathlib import Path

from mirror.server.supervisor import LONGEST_PAUSE, restart_delay
from tests.programs import without_coverage

# A worker that ends before it is ready, in the turn in which the parent hears of another signal first.
DEATH = """
import os, signal, sys
from pathlib import Path
from mirror.config.schema import CacheSettings, Config, ServerSettings
from mirror.server.supervisor import Hooks, Supervisor

leave, tell = os.pipe()
folder = Path(sys.argv[1])
server, cache = ServerSettings(listen=("127.0.0.1:0",)), CacheSettings(dir=folder / "cache")
config = Config(server=server, cache=cache, upstreams=())
hooks = Hooks(lambda: config, lambda *_: len(os.read(leave, 1)), lambda *_: None)
parent = Supervisor(config, hooks, {}, folder)
parent._announced = True
parent._selector.register(parent._wakeup, 1)
parent._start(config)
(worker,) = parent._workers
os.write(parent._signalled, bytes([signal.SIGCHLD]))
os.write(tell, b"x")
os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
parent._wait_and_handle()
(other,) = parent._workers
os.write(tell, b"x")
os.waitpid(other.pid, 0)
print(other.pid != worker.pid)
"""


def test_worker_that_dies_before_it_is_ready_is_replaced(tmp_path: Path) -> None:
    """The parent meets the death and the end of the pipe in one turn, the death first."""
    done = subprocess.run(
        [sys.executable, "-c", DEATH, str(tmp_path)],
        env=without_coverage(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["True"], 0), done.stderr


def test_restart_delay_grows_with_early_deaths() -> None:
    """The first early death has no delay; the delay of later ones doubles up to LONGEST_PAUSE."""
    assert [restart_delay(lives) for lives in range(6)] == [0, 0, 0.5, 1, 2, 4]
    assert restart_delay(1000) == LONGEST_PAUSE
