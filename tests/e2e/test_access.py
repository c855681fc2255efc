"""Access rules and real clients: what is allowed is pulled, and what is denied says so."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import pulling_by_name
from tests.e2e.conftest import Library
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs(
        "docker-registry",
        "nginx",
        "busybox",
        "containerd",
        "ctr",
        "dockerd",
        "docker",
        "podman",
        "skopeo",
        root=True,
    ),
    pytest.mark.timeout(300),
]

RULES = """
[[rule]]
name = "elsewhere"
effect = "allow"
networks = ["192.0.2.0/24"]

[[rule]]
name = "not this one"
effect = "deny"
networks = ["127.0.0.0/8"]
repositories = ["docker.io/{denied}"]
"""

WORDS = "the rules of this mirror do not let 127.0.0.1 pull docker.io/"

# Clients whose message has the mirror's words; ctr 1.6 shows the status alone.
SHOWN = {"docker": WORDS, "podman": WORDS, "skopeo": WORDS, "containerd": "403 Forbidden"}


@pytest.fixture
def mirror(library: Library, hub: Origin, tmp_path: Path) -> Iterator[Mirror]:
    """Run a mirror that denies `small` to this machine."""
    file = tmp_path / "mirror.toml"
    file.write_text(RULES.format(denied=library.small.name))
    with Mirror(tmp_path / "ruled", hub.url, "--config", file) as running:
        yield running


@pytest.fixture
def clients(mirror: Mirror, short: Path) -> Iterator[dict[str, Callable[[str], str]]]:
    """Return the function of each client that pulls by the mirror's name, and returns the complaint or ""."""
    with pulling_by_name(mirror.address, short) as found:
        yield found


def test_clients_pull_what_is_allowed_and_are_told_what_is_denied(
    library: Library, mirror: Mirror, clients: dict[str, Callable[[str], str]]
) -> None:
    for client, pull in clients.items():
        assert pull(library.many.reference) == "", client
        assert SHOWN[client] in pull(library.small.reference), client
    lines = mirror.lines(library.small.name)
    assert {line["outcome"] for line in lines} == {"denied"}
    assert {line["note"] for line in lines} == {"denied by rule 2 (not this one)"}
