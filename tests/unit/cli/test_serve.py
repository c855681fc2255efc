"""The `serve` command: its flags, and what a start imports."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from mirror.cli.program import app
from mirror.cli.serve import Flags, parse_flags
from tests.programs import without_coverage
from tests.unit.cli.test_app import run

# Prints what is imported when the mirror is ready, and ends.
SCRIPT = """
import os, signal, sys
from mirror.cli import app, serve

announce = serve._announce

def announced(*arguments, **options):
    announce(*arguments, **options)
    print(*sorted(sys.modules), flush=True)
    os.kill(os.getppid(), signal.SIGTERM)  # the worker announces, and its parent ends it

serve._announce = announced
app.main()
"""

# Libraries that a running mirror does without.
NOT_OF_A_SERVER = {
    "pydantic",
    "pydantic_core",
    "typer",
    "click",
    "rich",
    "cattrs",
    "ruamel",
    "packaging",
    "cronsim",
    # Of accounts that are not configured.
    "mirror.credentials.sources",
    "mirror.credentials.process",
    "mirror.credentials.docker_config",
}

# Modules of this mirror that a server imports only if its configuration uses them.
UNCONFIGURED = {
    "mirror.shared",
    "mirror.transfer.shared",
    "obstore",
    "redis",
    "mirror.access.certificate",
    "mirror.access.proxy_protocol",
    "mirror.system.shared_table",
    "mirror.util.fairness.line",
    "mirror.web.accept.acceptor",
    "jinja2",
    "mirror.manage.management",
    "mirror.web.activity",
    "mirror.web.admin",
    "mirror.web.audit",
    "mirror.web.limits.limiter",
}


def test_startup_of_serve_imports_no_command_line(tmp_path: Path) -> None:
    """A server parses its flags without typer, and its configuration without pydantic."""
    flags = ["serve", "--listen", "127.0.0.1:0", "--cache-dir", str(tmp_path / "cache"), "--offline"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *flags],
        env=without_coverage(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = set(done.stdout.split())
    assert "aiohttp.web" in imported
    assert imported & (NOT_OF_A_SERVER | UNCONFIGURED) == set()


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ([], Flags([], [])),
        (["--config", "a"], Flags([], [], config="a")),
        (["--config="], Flags([], [], config="")),
        (["--config", "a", "--config", "b"], Flags([], [], config="b")),
        (["--listen", ":1", "--listen=:2", "--offline"], Flags([":1", ":2"], [], offline=True)),
        (["--upstream", "a=http://b", "--cache-dir", "-x"], Flags([], ["a=http://b"], cache_dir="-x")),
        (["--upstream=a=b=c"], Flags([], ["a=b=c"])),
    ],
)
def test_flags_of_serve(arguments: list[str], flags: Flags) -> None:
    """A value follows its flag or an equals sign; the last one counts, or all of a repeatable flag."""
    assert parse_flags(arguments) == flags


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["--offline", "-h"],
        ["--offline=1"],
        ["x"],
        ["--"],
        ["--conf", "x"],
        ["--listen"],
        [""],
    ],
)
def test_other_arguments_of_serve_are_typers(arguments: list[str]) -> None:
    """Help, and the error for a wrong argument, come from the library that has the texts."""
    assert parse_flags(arguments) is None


def test_wrong_arguments_of_serve_are_explained() -> None:
    """The exit status is 2, and the message names the argument."""
    for arguments, message in ((["--lissten", ":1"], "--lissten"), (["x"], "x"), (["--listen"], "--listen")):
        done = run("serve", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_serve_has_the_flags_that_help_shows() -> None:
    """typer's options and the flags that are parsed without it are the same."""
    top: Any = typer.main.get_command(app)
    options = {each.name: each for each in top.commands["serve"].params if each.name != "help"}
    assert options.keys() == set(Flags._fields)
    for name, option in options.items():
        (flag,) = option.opts
        parsed = parse_flags([flag] if option.is_flag else [flag, "x"])
        assert parsed is not None
        assert getattr(parsed, name) == (True if option.is_flag else ["x"] if option.multiple else "x")


def test_interrupt_before_the_server_is_up_ends_quietly(tmp_path: Path) -> None:
    """Ctrl-C while a start waits for something is no traceback."""
    fifo = tmp_path / "mirror.toml"
    os.mkfifo(fifo)
    # Tests that run in the background ignore SIGINT, and so would the processes that they start.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "mirror", "serve", "--config", str(fifo)]
    # Without coverage, which holds a lock that a signal may leave held.
    env = without_coverage()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        writer = os.open(fifo, os.O_WRONLY)  # returns when the mirror has opened it, and waits for its text
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        os.close(writer)
    assert (process.returncode, errors) == (128 + signal.SIGINT, "")
