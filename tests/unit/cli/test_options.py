"""Help, usage lines, and what a start costs."""

import pytest

from tests.unit.cli.test_app import run

COMMANDS = ["serve", "verify", "ls", "rm", "du", "gc", "pin", "unpin", "pins", "config"]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_a_short_option_everywhere(option: str) -> None:
    """The program, a command, and a command of a group."""
    for arguments in ([], ["ls"], ["config"], ["config", "show"]):
        assert run(*arguments, option).stdout.startswith("Usage: ")


def test_help_lists_every_command() -> None:
    """Each has a line that is not cut off."""
    lines = {line.split()[0]: line for line in run("--help").stdout.splitlines() if line.strip()}
    for command in COMMANDS:
        assert not lines[command].endswith("...")


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["config", "check"], "registry-mirror config check [OPTIONS] [FILE]"),
        (["ls"], "registry-mirror ls [OPTIONS] [PATTERN]"),
        (["rm"], "registry-mirror rm [OPTIONS] PATTERN"),
        (["pin"], "registry-mirror pin [OPTIONS] REF"),
    ],
)
def test_usage_lines_follow_the_convention(arguments: list[str], usage: str) -> None:
    """A required argument stands bare, an optional one in brackets."""
    assert run(*arguments, "--help").stdout.splitlines()[0] == f"Usage: {usage}"


def test_completion_is_for_the_shell_that_asks() -> None:
    """The program completes its own commands and options, in the way of bash for instance."""
    env = {
        "COMP_WORDS": "registry-mirror un",
        "COMP_CWORD": "1",
        "_REGISTRY_MIRROR_COMPLETE": "complete_bash",
    }
    assert run(env=env).stdout.split() == ["unpin"]
    assert "complete -o default -F" in run("--show-completion", "bash").stdout
    options = {**env, "COMP_WORDS": "registry-mirror ls --j", "COMP_CWORD": "2"}
    assert run(env=options).stdout.split() == ["--json"]


def test_help_of_serve_has_defaults() -> None:
    """An option that is not given has a value too."""
    text = " ".join(run("serve", "--help").stdout.split())
    for default in (
        "Default: 127.0.0.1:5000.",
        "/var/cache/registry-mirror",
        "/etc/registry-mirror/mirror.toml",
    ):
        assert default in text
