"""Programs that tests put on PATH: a credential helper that speaks Docker's protocol, and others."""

import json
from pathlib import Path

# Notes each call (arguments, input, environment) as a line of `calls`, then does what the test says.
SCRIPT = """#!/bin/sh
given=$(cat)
{{ printf 'call %s|%s|' "$*" "$given"; tr '\\0' ' ' < /proc/$$/environ; echo; }} >> '{calls}'
{then}
"""


def write_file(file: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file: a script that runs is read meanwhile. Tests may do so in their event loop."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(text, errors="surrogateescape")
    new.chmod(mode)
    new.rename(file)


class FakeProgram:
    """A program NAME in `folder`; `says` changes what it does from the next call on."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / name
        self._calls = folder / f"{name}.calls"
        self._calls.touch()

    def says(self, text: str, status: int = 0) -> None:
        """Print a text and end."""
        answer = self.path.with_suffix(".answer")
        write_file(answer, text)
        self.does(f"cat '{answer}'; exit {status}")

    def knows(self, logins: dict[str, tuple[str, str]], otherwise: str = "", status: int = 1) -> None:
        """Answer as a helper of Docker with these logins by server; `otherwise` for any other server."""
        cases = ""
        for number, (server, (user, secret)) in enumerate(logins.items()):
            answer = self.path.with_suffix(f".{number}")
            write_file(answer, json.dumps({"ServerURL": server, "Username": user, "Secret": secret}))
            cases += f"'{server}') cat '{answer}';;\n"
        self.does(f"case \"$given\" in\n{cases}*) printf %s '{otherwise}'; exit {status};;\nesac")

    def does(self, then: str) -> None:
        """Run these lines of shell."""
        write_file(self.path, SCRIPT.format(calls=self._calls, then=then), 0o755)

    @property
    def calls(self) -> list[str]:
        """Each call: `arguments|input|environment`."""
        return [
            line.removeprefix("call ")
            for line in self._calls.read_text().splitlines()
            if line.startswith("call ")
        ]

    @property
    def asked(self) -> list[str]:
        """The input of each call."""
        return [call.split("|")[1] for call in self.calls]
