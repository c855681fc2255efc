"""The commands by name: what the help says of each, and what is imported for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import mirror.cli
from mirror.cli.commands import PLACES
from mirror.cli.program import app
from tests.programs import without_coverage
from tests.unit.cli.test_app import run

CLI = Path(mirror.cli.__file__).parent

# Runs the program, and prints the modules of commands that are imported then.
SCRIPT = """
import sys
from mirror.cli.app import main
from mirror.cli.commands import PLACES
try:
    main()
finally:
    print("imported", *sorted({each.module for each in PLACES.values()} & sys.modules.keys()))
"""


def imported_by(*arguments: str) -> list[str]:
    """Return the modules of commands that a run of the program imports."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=without_coverage(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("name", PLACES)
def test_list_of_commands_says_what_their_help_says(name: str) -> None:
    """The line in the list is the first sentence of the command's own help."""
    top: Any = typer.main.get_command(app)
    _, command, rest = top.resolve_command(typer.Context(top), [name, "x"])
    assert (command.name, rest) == (name, ["x"])
    assert top.commands[name].get_short_help_str(200) == command.get_short_help_str(200)


def test_each_module_of_commands_has_its_rows() -> None:
    """No module's command is left out of the list."""
    files = (path for path in CLI.rglob("*.py") if "\ndef add_to(" in path.read_text())
    modules = {".".join(["mirror.cli", *path.relative_to(CLI).with_suffix("").parts]) for path in files}
    assert modules == {each.module for each in PLACES.values()}
    for module in modules:
        program = typer.Typer()
        sys.modules[module].add_to(program)
        group = typer.main.get_group(program)
        assert set(group.commands) == {name for name, each in PLACES.items() if each.module == module}


def test_help_imports_no_command() -> None:
    """The list of commands needs none of them."""
    assert imported_by("--help") == []
    assert imported_by("nonsense") == []


def test_command_imports_its_own_module_only(tmp_path: Path) -> None:
    """A command does not wait for what others import."""
    assert imported_by("ls", "--cache-dir", str(tmp_path)) == ["mirror.cli.cache"]
    assert imported_by("config", "show", "--help") == ["mirror.cli.config.settings"]


def test_mistyped_command_gets_a_suggestion() -> None:
    """Commands that are not imported are suggested too."""
    done = run("unpni")
    assert (done.returncode, "'unpin'" in done.stderr) == (2, True)
