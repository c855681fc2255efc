"""Clients that ask for referrers: known by what they asked for, or by their name and version.

Most clients never do. Docker does from 29.1 on with the containerd image store, for attestations of each
image that it pulls; containerd does from 2.2 on where hosts.toml says so; cosign, oras and regctl do where
they are asked to.
"""

import re

from msgspec import Struct

from mirror.util.ttl_cache import TTLCache

# How long a client that asked for referrers is taken for one that will ask, in seconds, and how many are.
REMEMBERED_SECONDS = 24 * 3600.0
REMEMBERED = 4096
# Characters of a User-Agent that tell clients apart; a longer one is the same client.
AGENT = 200

# Docker tells `containerd-client/...` where it has the containerd image store.
_DOCKER = re.compile(r"docker/(\d{1,4})\.(\d{1,4})\b.*\bcontainerd-client/")
_DOCKER_ASKS_FROM = (29, 1)


class Requester(Struct, frozen=True):
    """The client of a request: its address, and its User-Agent."""

    address: str
    agent: str


class ReferrersClients:
    """Clients that have asked for referrers lately."""

    def __init__(self) -> None:
        self._asked: TTLCache[tuple[str, str], bool] = TTLCache(REMEMBERED_SECONDS, REMEMBERED)

    def note(self, client: Requester) -> None:
        """Record a request for referrers."""
        self._asked.put(_key(client), True)

    def will_ask(self, client: Requester) -> bool:
        """Return whether the client is expected to ask for referrers of an image that it pulls."""
        return bool(self._asked.get(_key(client))) or asks_by_version(client.agent)


def asks_by_version(agent: str) -> bool:
    """Return whether each client of this name and version asks for referrers."""
    found = _DOCKER.match(agent[:AGENT])
    return found is not None and (int(found[1]), int(found[2])) >= _DOCKER_ASKS_FROM


def _key(client: Requester) -> tuple[str, str]:
    return client.address, client.agent[:AGENT]
