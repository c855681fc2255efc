"""Origin in its own network, with a proxy in front of all its parts that injects faults on command.

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

from tests.e2e import fault_proxy
from tests.e2e.fault_proxy import Fault, Passage
from tests.e2e.netns import Namespace, namespace
from tests.e2e.origin import NGINX, Authority, registry_config, token_server
from tests.e2e.processes import Process, listens
from tests.programs import program

# Ports in the namespace, which has no others.
REGISTRY, CDN, TOKENS = 5000, 5001, 5002
BEHIND = 1000  # offset from a door's port to that of the program behind it

# Name of the origin, for mirrors that find it by DNS.
NAME = "registry.lab"


@dataclass(frozen=True)
class Lab:
    """Origin whose network and answers can be broken, and which records its requests."""

    net: Namespace
    control: Path

    @property
    def url(self) -> str:
        return f"http://{self.net.there}:{REGISTRY}"

    @property
    def named(self) -> str:
        """URL with the origin's name, which /etc/hosts must have."""
        return f"http://{NAME}:{REGISTRY}"

    def break_(self, *faults: Fault) -> None:
        """Inject these faults, and no others, from now on."""
        self._tell(faults=[asdict(fault) for fault in faults])

    def hang_up(self) -> None:
        """End every connection of the mirror to the origin."""
        self._tell(hang_up=True)

    def heal(self) -> None:
        """Remove all faults."""
        self.net.heal()
        self.break_()

    def passages(self, since: int = 0) -> list[Passage]:
        """Return the requests since number `since`, with their fate."""
        return [Passage(**each) for each in self._tell(since=since)]

    def count(self) -> int:
        """Return the number of requests so far."""
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
    """Run an origin of the images in `storage`. `folder` needs a short name: it holds a socket."""
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
        # -P: modules of this folder do not hide those of the standard library.
        proxy: list[str | Path] = [sys.executable, "-P", str(fault_proxy.__file__), folder / "ctl", net.there]
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
