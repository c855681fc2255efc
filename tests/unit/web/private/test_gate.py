import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.access.identity import Identity
from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule, parse_network
from mirror.oci.reference import Repository, Tag, Target, TargetKind, Via
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.web.private.gate import PrivateGate, PrivateRefused, Visitor
from tests.fakes.access import TokenAuth
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving

SECRET, OPEN = Repository("quay.io", "org/secret"), Repository("quay.io", "org/open")
OFFICE, ALICE = Identity("10.0.0.1"), Identity("192.0.2.1", ("user:alice",))
STRANGER = Identity("192.0.2.1")
POLICY = Policy(
    [
        Rule(1, True, "all"),
        Rule(2, True, "office", networks=(parse_network("10.0.0.0/8"),)),
        Rule(3, True, "alice", identities=("user:alice",), repositories=("quay.io/org/*",), tags=("1",)),
    ]
)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[PrivateGate]:
    async with FakeRegistry() as quay, FakeRegistry() as hub:
        for repository in (SECRET, OPEN):
            quay.add_image(repository.path, "1", [b"layer"])
        quay.auth = TokenAuth(user="u", password="p", private={SECRET.path}, users={"me": "x"})
        config = configured(
            tmp_path / "cache",
            {"docker.io": hub.url, "quay.io": quay.url},
            upstream_of={"quay.io": {"username": "u", "password": "p", "private": "as-upstream"}},
        )
        async with serving(config) as mirror:
            yield PrivateGate(mirror.service.cache.private)


def manifest(repository: Repository) -> Target:
    return Target(TargetKind.MANIFEST, Via.PREFIX, repository.upstream, repository, Tag("1"))


async def admitted(gate: PrivateGate, identity: Identity, repository: Repository, *login: str) -> float:
    credentials = GuestLogin(*login) if login else None
    return await gate.admit(
        Visitor(identity, POLICY, credentials), repository, manifest(repository), Action.PULL
    )


async def test_gate_lets_in_who_is_named_and_everybody_to_what_is_public(gate: PrivateGate) -> None:
    assert await admitted(gate, OFFICE, SECRET) == await admitted(gate, ALICE, SECRET) == math.inf
    assert 0 < await admitted(gate, STRANGER, OPEN) < math.inf
    assert 0 < await admitted(gate, STRANGER, SECRET, "me", "x") < math.inf


@pytest.mark.parametrize("login", [(), ("me", "y")])
async def test_gate_refuses_and_says_what_would_help(gate: PrivateGate, login: tuple[str, ...]) -> None:
    with pytest.raises(PrivateRefused) as refused:
        await admitted(gate, STRANGER, SECRET, *login)
    rule = '[[rule]] effect = "allow", networks = ["192.0.2.1"], repositories = ["quay.io/org/secret"]'
    assert rule in str(refused.value)
    assert rule in refused.value.note
    assert 0 < refused.value.ttl < math.inf


async def test_gate_concerns_guarded_upstreams_only(gate: PrivateGate) -> None:
    assert gate.is_shut
    assert gate.concerns(manifest(SECRET))
    assert not gate.concerns(manifest(Repository("docker.io", "library/app")))
    assert not gate.concerns(Target(TargetKind.CATALOG, Via.PREFIX, "quay.io"))


async def test_gate_hides_names_that_are_not_known_to_be_public(gate: PrivateGate) -> None:
    names = [str(SECRET), str(OPEN), "docker.io/library/app"]
    stranger = Visitor(STRANGER, POLICY)
    assert await gate.hidden(stranger, names) == {str(SECRET), str(OPEN)}
    await admitted(gate, STRANGER, OPEN)
    assert await gate.hidden(stranger, names) == {str(SECRET)}
    assert await gate.hidden(Visitor(OFFICE, POLICY), names) == set()
    guest = Visitor(STRANGER, POLICY, GuestLogin("me", "x"))
    assert await gate.hidden(guest, names) == {str(SECRET)}
    await admitted(gate, STRANGER, SECRET, "me", "x")
    assert await gate.hidden(guest, names) == set()
