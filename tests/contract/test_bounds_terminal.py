"""Bounds of output: text of a cache folder, an image or an upstream commands no terminal."""

import ast
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

import mirror
from mirror.cli import output
from mirror.store.cache_dir import CacheDirectory
from mirror.util.terminal_log import TerminalRenderer
from tests.unit.cli.test_app import run

pytestmark = pytest.mark.slow

# Title, colour, cursor, eight-bit CSI, right-to-left override, backspace, delete; a byte that is no UTF-8.
EVIL = "\x1b]0;x\x07\x1b[31m\x1b[2J\x9b1m\u202e\x08\x7f"
EVIL_NAME = os.fsencode(EVIL) + b"\xff"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache in a folder with an evil name, with evil names in each of its folders."""
    path = tmp_path / EVIL
    with closing(CacheDirectory(path)):
        pass
    for folder in ("", "blobs", "blobs/sha256", "partial", "quarantine"):
        place = os.path.join(os.fsencode(path), folder.encode())
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, EVIL_NAME), "wb"):
            pass
    (path / "pins").write_text(f"docker.io/library/{EVIL}:x\n")
    return path


def assert_harmless(text: str) -> None:
    assert [each for each in text if not each.isprintable() and each not in "\n\t"] == []


@pytest.mark.parametrize(
    "command",
    [
        ["verify"],
        ["verify", "--json"],
        ["verify", "--repair"],
        ["ls"],
        ["du"],
        ["gc", "--dry-run"],
        ["gc"],
        ["pins"],
        ["pin", EVIL],
        ["unpin", EVIL],
        ["rm", "--yes", f"library/{EVIL}"],
        ["config", "show"],
        ["config", "show", "--json"],
    ],
    ids=" ".join,
)
def test_commands_escape_outside_text(cache: Path, command: list[str]) -> None:
    """Neither output nor errors have a control character, and no name is a traceback."""
    option = [] if command[:2] == ["config", "check"] else ["--cache-dir", str(cache)]
    done = run(*command, *option)
    assert_harmless(done.stdout)
    assert_harmless(done.stderr)
    assert "Traceback" not in done.stderr


def test_errors_escape_outside_text(tmp_path: Path) -> None:
    """The message about a file, a folder or an option names it, escaped."""
    for command in (["ls", "--cache-dir", EVIL], ["config", "check", EVIL], ["verify", "--rate", EVIL]):
        done = run(*command)
        assert done.returncode
        assert_harmless(done.stdout + done.stderr)


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_escape_outside_text(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image's platform is a text of its author; a cell cannot become two, nor a line."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    output.table(("IMAGE", "PLATFORMS"), [("x", f"linux/{EVIL}\n\tamd64")])
    lines = capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert len(lines) == 2
    assert_harmless("".join(lines))
    assert terminal or lines[1].count("\t") == 1


def test_json_escapes_outside_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A document parses back to the same text."""
    output.json_document({"a": EVIL})
    text = capsys.readouterr().out
    assert_harmless(text)
    assert json.loads(text) == {"a": EVIL}


def test_tracebacks_in_the_log_escape_outside_text() -> None:
    """The message of an exception may quote an upstream."""
    line = TerminalRenderer(colors=False)(None, "", {"event": "x", "exception": f"Error: {EVIL}\n  at y"})
    assert_harmless(line)
    assert line.count("\n") == 2


def test_only_the_output_module_prints() -> None:
    """Each other print in the command line escapes what it prints."""
    found = []
    for path in (Path(mirror.__file__).parent / "cli").glob("*.py"):
        if path.name == "output.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "print",
                "typer.echo",
                "typer.secho",
                "sys.stdout.write",
                "sys.stderr.write",
            }:
                found += [ast.unparse(node)] if "printable(" not in ast.unparse(node) else []
    assert found == []
