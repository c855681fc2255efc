"""Start-up: the processor time of commands, and of `serve` until it is ready; memory of an idle mirror.

Modules are compiled first, as pip does it: the first start after an upgrade is not measured.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from tests.bench.bench import Bench
from tests.bench.contestants import BASE, MIRROR
from tests.bench.machine import SERVER_CORE, cpu_seconds, on_core, pss_bytes, until_idle

# How often a command is run; its figure is the least of these.
RUNS = 5

# Limit, in seconds, for a command, and for the end of a mirror.
PATIENCE = 60.0

COMMANDS = {
    "startup-version": ["--version"],
    "startup-help": ["--help"],
    "startup-ls": ["ls"],
    "startup-check": ["config", "check", "{config}"],
}


def startup(bench: Bench) -> None:
    """Measure each row in this checkout, and in the other one if there is one."""
    for name in bench.turns(MIRROR):
        with bench.attempt("startup", name):
            root = bench.options.base if name == BASE else None
            _measure(bench, name, program(root), bench.folder())


def program(root: Path | None) -> list[str]:
    """Return the command of this checkout, or of the checkout in `root` with its own .venv."""
    python = sys.executable if root is None else str(root / ".venv" / "bin" / "python")
    where = Path(__file__).parents[2] if root is None else root
    subprocess.run([python, "-m", "compileall", "-q", str(where / "mirror")], check=True)
    if root is None:
        return [python, "-m", "mirror"]
    return [str(root / ".venv" / "bin" / "registry-mirror")]  # -m would find the working directory's package


def _measure(bench: Bench, name: str, command: Sequence[str], folder: Path) -> None:
    folder.mkdir()
    config = folder / "mirror.toml"
    config.write_text(f'[cache]\ndir = "{folder / "cache"}"\n')
    with on_core(SERVER_CORE), _serving(command, config) as (process, seconds):
        bench.add("startup-serve", name, cpu_seconds(process.pid))
        bench.add("startup-serve-wall", name, seconds)
        until_idle(process.pid)
        bench.add("startup-pss", name, pss_bytes(process.pid) / 1e6)
    with on_core(SERVER_CORE):
        for row, arguments in COMMANDS.items():
            given = [each.format(config=config) for each in arguments]
            given += ["--config", str(config)] if row == "startup-ls" else []
            bench.add(row, name, min(_cpu([*command, *given]) for _ in range(RUNS)))


@contextmanager
def _serving(command: Sequence[str], config: Path) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Run a mirror; yield it once it says that it serves, with the seconds that this took."""
    before = time.monotonic()
    flags = ["serve", "--listen", "127.0.0.1:0", "--config", str(config)]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert b" serves on " in line, line
            yield process, time.monotonic() - before
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def _cpu(command: Sequence[str]) -> float:
    """Return the processor time of a command, in seconds."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
