"""Forked commands give what started ones give."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.forked import COMMANDS
from tests.leftovers import children

COMMAND = [sys.executable, "-m", "mirror"]


@pytest.mark.parametrize("arguments", [["--version"], ["none"], ["ls", "--cache-dir", "none", "ä"]])
def test_forked_command_gives_what_a_started_one_gives(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output, errors and exit status are equal, in a folder with a name that is no UTF-8 too."""
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(folder)
    monkeypatch.chdir(folder)
    started = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60)
    forked = COMMANDS.run(arguments, dict(os.environ))
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        started.returncode,
        started.stdout,
        started.stderr,
    )


def test_forked_commands_run_at_once() -> None:
    """Each of several commands gets its own output, and none is left."""
    words = [f"word{number}" for number in range(4)]
    COMMANDS.run(["--version"], dict(os.environ))
    before = set(children(os.getpid()))
    with ThreadPoolExecutor(len(words)) as pool:
        done = list(pool.map(lambda word: COMMANDS.run([word], dict(os.environ)), words))
    assert [each.returncode for each in done] == [2] * len(words)
    assert all(word in each.stderr for word, each in zip(words, done, strict=True))
    assert set(children(os.getpid())) <= before


def test_command_is_started_where_the_environment_is_of_the_interpreter() -> None:
    """Variables that Python reads at its start reach the command."""
    done = COMMANDS.run(["--version"], {**os.environ, "PYTHONVERBOSE": "1"})
    assert done.returncode == 0
    assert "# installing zipimport hook" in done.stderr
