"""Pulls of containerd with one hosts.toml for all registries: each image is from the registry of its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import Containerd, containerd
from tests.e2e.conftest import Library
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", "containerd", "ctr", root=True),
    pytest.mark.timeout(300),
]

# No registry itself is asked, so that a pull has what the mirror has, or fails.
HOSTS = """
server = "{url}"

[host."{url}"]
  capabilities = ["pull", "resolve"]
"""


@pytest.fixture
def both(hub: Origin, tmp_path: Path) -> Iterator[Mirror]:
    """Run a mirror of docker.io, which is `hub`, and of private.test, which is not there."""
    flags = ("--upstream", "private.test=http://127.0.0.1:1", "--upstream", f"hub.test={hub.url}")
    with Mirror(tmp_path / "both", hub.url, *flags) as mirror:
        yield mirror


@pytest.fixture
def ctr(both: Mirror, short: Path) -> Iterator[Containerd]:
    folder = short / "containerd"
    with containerd(folder, both.url) as client:
        default = folder / "certs.d" / "_default"
        default.mkdir()
        (default / "hosts.toml").write_text(HOSTS.format(url=both.url))
        yield client


@pytest.mark.parametrize("registry", ["private.test", "unknown.test"])
def test_containerd_stores_no_public_image_under_a_private_name(
    library: Library, ctr: Containerd, registry: str
) -> None:
    """A repository that begins like an upstream of the mirror is not taken from that upstream."""
    for name in ("hub.test", "docker.io"):
        assert ctr.try_pull(f"{registry}/{name}/{library.small.reference}")
    assert library.small.digest not in ctr("images", "ls")


def test_containerd_pulls_by_its_own_word(library: Library, ctr: Containerd) -> None:
    """The registry that containerd names is the one that answers."""
    ctr.pull(f"hub.test/{library.small.reference}")
    assert library.small.digest in ctr("images", "ls")
