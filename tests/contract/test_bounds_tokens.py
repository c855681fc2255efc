"""Tokens: bounded in number and bytes, short-lived, and gone once they were rejected."""

from typing import Any

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.challenge import parse_challenges
from mirror.oci.reference import Tag
from mirror.upstream.accounts import MAX_REPOSITORIES
from mirror.upstream.auth import AuthDemand, Authorizer
from mirror.upstream.errors import UpstreamError
from mirror.upstream.http.transport import Transport
from mirror.upstream.registry_client import RegistryClient
from tests.fakes.access import TokenAuth
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen
from tests.fakes.upstream import FakeTime, registry_at

LATEST = Tag("latest")
HOUR = 3600.0


def tokens(fake: FakeRegistry) -> list[Seen]:
    return [seen for seen in fake.log if seen.path == "/token"]


def guarded(fake: FakeRegistry, **values: Any) -> TokenAuth:
    fake.add_image("a", "latest", [b"layer"])
    fake.auth = auth = TokenAuth(**values)
    return auth


class Minted(Authorizer):
    """An authorizer whose token server is here: tokens of `size` bytes that never expire."""

    size = 3000

    async def _fetch(self, key: object) -> tuple[str, float]:
        return "Bearer " + "t" * self.size, 10.0**8


def minted() -> Minted:
    settings = UpstreamSettings(name="u.test", url="https://u.test")
    return Minted(settings, Transport(settings, Metrics()), FakeTime())


async def ask(auth: Authorizer, repository: str) -> None:
    challenges = parse_challenges([f'Bearer realm="https://u.test/token",scope="{repository}"'])
    await auth.answer(AuthDemand(tuple(challenges), repository, own=True))


@pytest.mark.parametrize("size", [10, 3000, 900_000])
async def test_tokens_are_bounded_in_bytes(size: int) -> None:
    """Each made-up name brings a token: they stay within 8 MiB, however long they are."""
    auth = minted()
    auth.size = size
    for number in range(20_000 if size == 10 else 4_000):
        await ask(auth, f"made/up{number}")
    assert auth._tokens.size <= 8 * 1024 * 1024
    assert len(auth._tokens) < 14_000


async def test_token_in_use_outlives_a_flood_of_names() -> None:
    """Names that are made up do not push out the token of a repository that is asked for all the time."""
    auth = minted()
    await ask(auth, "used")
    (used,) = auth._tokens._entries
    for number in range(6_000):
        await ask(auth, f"made/up{number}")
        if number % 1000 == 0:
            await ask(auth, "used")
    assert used in auth._tokens._entries


async def test_token_is_used_for_an_hour_at_most() -> None:
    """A server may promise years: after an hour another token is asked for."""
    time = FakeTime()
    async with FakeRegistry() as fake, registry_at(fake.url, time) as registry:
        guarded(fake, answer={"expires_in": 10**8})
        await registry.head_manifest("a", LATEST)
        time.now += HOUR * 0.8
        await registry.head_manifest("a", LATEST)
        assert len(tokens(fake)) == 1
        time.now += HOUR * 0.2
        await registry.head_manifest("a", LATEST)
        assert len(tokens(fake)) == 2


async def denied(registry: RegistryClient) -> None:
    with pytest.raises(UpstreamError):
        await registry.head_manifest("a", LATEST)


async def test_rejected_token_is_not_sent_again() -> None:
    """A token that was answered 401 is forgotten, also when no other one can be had."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
        auth = guarded(fake)
        await registry.head_manifest("a", LATEST)
        old = fake.log[-1].headers["Authorization"]
        challenge = {"WWW-Authenticate": auth.challenges(fake.url, "a")[0]}
        fake.fault(Fault(status=401, headers=challenge), "manifests")
        fake.fault(Fault(status=503), "/token")
        await denied(registry)
        assert fake.log[-2].headers["Authorization"] == old
        await registry.head_manifest("a", LATEST)
        assert old not in [seen.headers.get("Authorization") for seen in fake.log[-3:]]


async def test_token_that_is_rejected_at_once_is_not_kept() -> None:
    """A repository that no token opens: HEAD and GET ask for one token each, and send no token twice."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
        auth = guarded(fake)
        challenge = {"WWW-Authenticate": auth.challenges(fake.url, "a")[0]}
        fake.fault(Fault(status=401, headers=challenge), "manifests", times=12)
        for _ in range(3):
            await denied(registry)
        assert len(tokens(fake)) == 6
        asked = [seen.headers.get("Authorization") for seen in fake.log if "manifests" in seen.path]
        assert [each is None for each in asked] == [True, False] * 6
        await registry.head_manifest("a", LATEST)


async def test_statuses_of_metrics_are_bounded() -> None:
    """An upstream that makes up statuses makes no series for each."""
    metrics = Metrics()
    async with FakeRegistry() as fake, registry_at(fake.url, metrics=metrics, attempts=1) as registry:
        for status in (404, 298, 431, 477, 488, 599):
            fake.fault(Fault(status=status))
            await denied(registry)
    labels = {sample.labels["status"] for sample in next(iter(metrics.upstream_requests.collect())).samples}
    assert labels == {"404", "2xx", "431", "4xx", "5xx"}


async def test_claims_of_repositories_are_bounded() -> None:
    """Claims of accounts on repositories end at 10,000 of them."""
    logins = [{"username": "a", "password": "x"}, {"username": "b", "password": "y"}]
    async with registry_at("https://u.test", accounts=logins) as registry:

        async def public() -> bool:
            return True

        for number in range(MAX_REPOSITORIES + 100):
            await registry.accounts.choose(f"made/up{number}", public)
        assert len(registry.accounts._claims) == MAX_REPOSITORIES
