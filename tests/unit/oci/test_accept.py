"""Accept headers: which manifests a client takes."""

import pytest

from mirror.oci.accept import ACCEPT_BYTES, ANYTHING, MOST_OTHERS, Accepted
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["*/*"],
        [f"{DOCKER_MANIFEST}, */*"],
        [DOCKER_MANIFEST, "*/*;q=0.1"],
        ["application/*"],
        ["*/*;0.1"],
        [",,;", ";q=1"],
        [f"{DOCKER_MANIFEST}," * (ACCEPT_BYTES // 20)],
    ],
)
def test_client_takes_anything(lines: list[str]) -> None:
    """No Accept, a wildcard, and what is too long or no header at all: as the upstream has it."""
    assert Accepted.parse(lines) == ANYTHING
    assert not any(ANYTHING.takes_single_only(each) for each in (DOCKER_LIST, OCI_INDEX, DOCKER_MANIFEST))
    assert ANYTHING.others() == ()


# The Accept headers of clients, as seen on the wire, and whether each takes Docker's list and OCI's index
# only as the manifest of one platform.
CLIENTS = {
    "containerd": ([f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*"], False, False),
    "docker": ([OCI_INDEX, DOCKER_LIST, DOCKER_MANIFEST, OCI_MANIFEST], False, False),
    "registry-api-v2-client": ([DOCKER_MANIFEST], True, False),
    "docker-charon": ([f"{DOCKER_MANIFEST},{SCHEMA1}"], True, False),
    "drclient": ([f"{DOCKER_MANIFEST},{OCI_MANIFEST}"], True, True),
    "pyoci": ([f"{OCI_MANIFEST}, {DOCKER_MANIFEST}, {OCI_INDEX}"], True, False),
    "npm docker-registry-client": ([DOCKER_MANIFEST, SCHEMA1], True, False),
    "conda-oci-mirror": ([OCI_MANIFEST], False, True),
    "dreg-client": ([f"{DOCKER_MANIFEST}, {DOCKER_LIST}"], False, False),
    "schema 1 alone": ([SCHEMA1], False, False),
    "quality": ([f"{DOCKER_MANIFEST};q=0.5, {DOCKER_LIST}; q=0"], True, False),
    "case": ([DOCKER_MANIFEST.upper()], True, False),
    "docker's list and OCI's manifest": ([f"{DOCKER_LIST}, {OCI_MANIFEST}"], False, False),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_client_that_takes_single_manifests_only(name: str) -> None:
    """Docker's list goes by Docker's types, as in distribution; OCI's index by the lack of any list."""
    lines, docker, oci = CLIENTS[name]
    accepted = Accepted.parse(lines)
    assert accepted.takes_single_only(DOCKER_LIST) is docker
    assert accepted.takes_single_only(OCI_INDEX) is oci
    assert not accepted.takes_single_only(DOCKER_MANIFEST)
    assert not accepted.takes_single_only(OCI_MANIFEST)


@pytest.mark.parametrize(
    ("line", "others"),
    [
        (f"{OCI_MANIFEST}, {ARTIFACT}", (ARTIFACT,)),
        (f"{SCHEMA1}, application/json, {DOCKER_LIST}", ()),
        (f"{SCHEMA1.removesuffix('+json')}+prettyjws", ()),
        ("text/html, image/png, application/xhtml+xml", ("application/xhtml+xml",)),
        ("application/b, application/a", ("application/a", "application/b")),
        ("application/a;q=0, application/b", ("application/b",)),
        ("application/a b, application/c\x01, application/\u00e9, a", ()),
        (f"application/{'a' * 100}", ()),
        (", ".join(f"application/{number}" for number in range(99)), None),
    ],
)
def test_further_types(line: str, others: tuple[str, ...] | None) -> None:
    """Types that could be a manifest's, in a fixed order, and not many; never what may not be a header."""
    found = Accepted.parse([line]).others()
    assert len(found) == MOST_OTHERS if others is None else found == others
