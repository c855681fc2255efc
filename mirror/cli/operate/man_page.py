"""The man page, from the texts of `--help`.

`python -m mirror.cli.operate.man_page` prints it, so that an installed program has the page of its
own version.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

HEAD = """.\\" Printed by python -m mirror.cli.operate.man_page.
.TH REGISTRY-MIRROR 1
.SH NAME
registry-mirror \\- pull-through mirror for container registries
.SH SYNOPSIS
.B registry-mirror
.I COMMAND
.RI [ OPTIONS ]
"""

TAIL = """.SH FILES
.TP
.I /etc/registry-mirror/mirror.toml
Configuration; the environment variable REGISTRY_MIRROR_CONFIG names another one.
.TP
.I /var/cache/registry-mirror
Cache of the service.
"""


def page() -> str:
    """Return the man page of all commands."""
    import typer

    from mirror.cli.program import app

    group: Any = typer.main.get_command(app)
    lines = [HEAD, ".SH DESCRIPTION\n", *_paragraphs(group.help), ".SH COMMANDS\n"]
    for words, command in _commands(group, ()):
        lines.append(f".SS {_escape(' '.join(words))}\n")
        lines += _paragraphs(command.help)
        lines += _parameters(command)
    return "".join([*lines, TAIL])


def _commands(group: Any, before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the commands with their names; those of a group in its place."""
    for name in group.commands:
        command = group.commands[name]
        command = command.command() if hasattr(command, "module") else command
        if command.hidden:
            continue
        words = (*before, name)
        if hasattr(command, "commands"):
            yield from _commands(command, words)
        else:
            yield words, command


def _parameters(command: Any) -> Iterator[str]:
    for each in command.params:
        names = [*each.opts, *each.secondary_opts]
        if each.param_type_name == "argument":
            title = each.metavar or each.name.upper()
        else:
            takes = "" if each.is_flag else f" {each.metavar or each.type.name.upper()}"
            title = f"{', '.join(names)}{takes}"
        yield f".TP\n.B {_escape(title)}\n{_escape(getattr(each, 'help', None) or '')}\n"


def _paragraphs(text: str | None) -> Iterator[str]:
    """Yield the paragraphs of a help text; indented ones, and those after \\b, as they are."""
    for part in re.split(r"\n\s*\n", (text or "").strip("\n")):
        body = part.removeprefix("\b").strip("\n")
        if part.startswith(("\b", "    ")):
            yield f".PP\n.nf\n{_escape(body)}\n.fi\n"
        else:
            yield f".PP\n{_escape(' '.join(body.split()))}\n"


def _escape(text: str) -> str:
    """Return text as troff has it: no command at the beginning of a line, hyphens to copy."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))


if __name__ == "__main__":
    sys.stdout.write(page())
