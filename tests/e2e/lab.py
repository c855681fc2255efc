"""An origin in a network of its own, with a proxy in front of all its parts that breaks what it is told to.

mirror -> cable -> namespace: proxy -> docker-registry, nginx; and back over the cable, the token server
"""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.e2e import faulty
from tests.e2e.faulty import Fault, Passage
from tests.e2e.netns import Namespace, namespace
from tests.e2e.origin import NGINX, Authority, registry_config, token_server
from tests.e2e.processes import Process, listens
from tests.programs import program

# Ports in the namespace, which has no others.
REGISTRY, CDN, TOKENS = 5000, 5001, 5002
BEHIND = 1000  # the program behind a door is at its port and this

# The origin by name, for mirrors that are to find it by DNS.
NAME = "registry.lab"


@dataclass(frozen=True)
class Lab:
    """What can go wrong with this origin, and what has passed."""

    net: Namespace
    control: Path

    @property
    def url(self) -> str:
        return f"http://{self.net.there}:{REGISTRY}"

    @property
    def named(self) -> str:
        """The same by its name, which /etc/hosts must have."""
        return f"http://{NAME}:{REGISTRY}"

    def break_(self, *faults: Fault) -> None:
        """These faults, and no others, from now on."""
        self._tell(faults=[asdict(fault) for fault in faults])

    def hang_up(self) -> None:
        """End every connection of the mirror to the origin."""
        self._tell(hang_up=True)

    def heal(self) -> None:
        """All is well again."""
        self.net.heal()
        self.break_()

    def passages(self, since: int = 0) -> list[Passage]:
        """What was asked since passage number `since`, and what became of it."""
        return [Passage(**each) for each in self._tell(since=since)]

    def count(self) -> int:
        """How many requests have come so far."""
        return len(self.passages())

    def _tell(self, **order: object) -> list[dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rwb") as file:
            connection.settimeout(60)
            connection.connect(str(self.control))
            file.write(json.dumps({"since": 10**9, **order}).encode() + b"\n")
            file.flush()
            said: list[dict[str, Any]] = json.loads(file.readline())
        return said


@contextmanager
def lab(storage: Path, folder: Path) -> Iterator[Lab]:
    """An origin of what is in `storage`. `folder` needs a short name: there is a socket in it."""
    folder.mkdir()
    authority = Authority(folder, "tokens")
    with ExitStack() as stack:
        net = stack.enter_context(namespace())
        tokens = urlsplit(stack.enter_context(token_server(authority, net.here)))
        realm = f"http://{net.there}:{TOKENS}{tokens.path}"
        address, redirect = f"{net.there}:{REGISTRY + BEHIND}", f"http://{net.there}:{CDN}"
        config = registry_config(storage, address, redirect, (realm, authority))
        (folder / "registry.yml").write_text(json.dumps(config))
        (folder / "nginx.conf").write_text(
            NGINX.format(folder=folder, host=net.there, port=CDN + BEHIND, storage=storage, limit="", more="")
        )
        doors = [
            f"registry={REGISTRY}:{net.there}:{REGISTRY + BEHIND}",
            f"cdn={CDN}:{net.there}:{CDN + BEHIND}",
            f"tokens={TOKENS}:{tokens.netloc}",
        ]
        # -P: the folder of these modules is not where the standard library is looked for.
        proxy: list[str | Path] = [sys.executable, "-P", str(faulty.__file__), folder / "ctl", net.there]
        programs: dict[int, list[str | Path]] = {
            REGISTRY + BEHIND: [program("docker-registry"), "serve", folder / "registry.yml"],
            CDN + BEHIND: [program("nginx"), "-c", folder / "nginx.conf", "-g", "user root;"],
            TOKENS: [*proxy, *doors],
        }
        for port, command in programs.items():
            stack.enter_context(_inside(net, command, folder / f"{port}.log", port))
        yield Lab(net, folder / "ctl")


def _inside(net: Namespace, command: list[str | Path], log: Path, port: int) -> Process:
    return Process([*net.enter, *command], log, lambda: listens(port, net.there))
