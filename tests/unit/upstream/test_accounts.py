"""Accounts: one after another, each with its own tokens and budget, and one only for a private repository."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from mirror.metrics.metrics import Metrics
from mirror.oci.reference import Tag
from mirror.upstream import accounts
from mirror.upstream.accounts import CLAIM_TTL, PRIVATE_TTL, PUBLIC_TTL
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.rate_limit import LOW, OUT, PLENTY, SPARE
from mirror.upstream.registry_client import RegistryClient
from tests.fakes.access import BasicAuth, TokenAuth, basic_login
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import FakeTime, registry_at

LATEST = Tag("latest")
OPEN, OTHER, CLOSED = "org/open", "org/other", "org/closed"
TWO: dict[str, Any] = {
    "username": "ann",
    "password": "geheim-a",
    "accounts": [{"username": "bob", "password": "geheim-b"}],
    "attempts": 1,
}


@dataclass
class Hub:
    """A registry with tokens and a limit of 20 for each user, and a client with two accounts there."""

    fake: FakeRegistry
    auth: TokenAuth
    limit: RateLimit
    registry: RegistryClient
    time: FakeTime

    async def pull(self, repository: str, times: int = 1) -> None:
        for _ in range(times):
            await self.registry.get_manifest(repository, LATEST)

    def forget(self) -> None:
        """What was asked so far."""
        self.fake.log.clear()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    time = FakeTime()
    async with FakeRegistry() as fake, registry_at(fake.url, time, **TWO) as registry:
        for name in (OPEN, OTHER, CLOSED):
            fake.add_image(name, "latest", [name.encode()])
        users = {"ann": "geheim-a", "bob": "geheim-b"}
        fake.auth = auth = TokenAuth(users=users, private={CLOSED})
        fake.limit = limit = RateLimit(20)
        yield Hub(fake, auth, limit, registry, time)


async def test_the_first_is_used_as_long_as_it_has_something_left(hub: Hub) -> None:
    """Until its budget is out, which is before the first 429; then the next one."""
    await hub.pull(OPEN, 18)
    assert (hub.limit.used["ann"], hub.limit.used["bob"]) == (18, 0)
    await hub.pull(OPEN)
    assert (hub.limit.used["ann"], hub.limit.used["bob"]) == (18, 1)
    assert hub.limit.refused.total() == 0


async def test_nobody_is_asked_whether_it_is_public_before_that_matters(hub: Hub) -> None:
    """Then with one HEAD, remembered for all that follow."""
    await hub.pull(OPEN, 18)
    assert hub.fake.askers(OPEN) == {"ann", ""}  # the first request is the one that is challenged
    hub.forget()
    await hub.pull(OPEN, 5)
    assert hub.fake.askers(OPEN) == {"bob", ""}
    assert hub.fake.requests("HEAD", OPEN) == 2  # challenged once more: it has no token yet


async def test_a_private_repository_is_asked_with_one_account(hub: Hub) -> None:
    """Even when that means 429 though another one has something left."""
    await hub.pull(CLOSED, 20)
    with pytest.raises(UpstreamError, match="429") as caught:
        await hub.pull(CLOSED)
    assert caught.value.failure is Failure.RATE_LIMITED
    assert hub.fake.askers(CLOSED) == {"ann", ""}
    await hub.pull(OPEN)
    assert hub.limit.used["bob"] == 1


async def test_a_private_repository_stays_with_whoever_read_it_first(hub: Hub) -> None:
    """Also with the second account, when the first has something left again."""
    await hub.pull(OPEN, 18)
    await hub.pull(CLOSED, 2)
    hub.limit.used.clear()
    hub.time.now += 6 * 3600
    await hub.pull(OPEN)
    await hub.pull(CLOSED, 20)
    assert (hub.limit.used["ann"], hub.limit.used["bob"]) == (1, 20)
    assert hub.fake.askers(CLOSED) == {"bob", ""}


async def test_two_requests_at_once_choose_alike(hub: Hub) -> None:
    """The choice is made before anything is waited for."""
    hub.limit.used["ann"] = 17
    await hub.pull(OPEN)
    hub.forget()
    await asyncio.gather(*(hub.pull(CLOSED) for _ in range(8)))
    assert hub.fake.askers(CLOSED) == {"bob", ""}


async def test_a_429_leads_to_the_next_account_within_the_request(hub: Hub) -> None:
    """Nobody is told of it; the first rests for as long as it was told."""
    hub.limit.used["ann"] = 20
    hub.limit.retry_after = "100"
    await hub.pull(OPEN)
    assert (hub.limit.refused["ann"], hub.limit.used["bob"]) == (1, 1)
    hub.fake.limit = None
    hub.time.now += 100
    hub.forget()
    await hub.pull(OPEN)
    assert hub.fake.askers(OPEN) == {"bob"}  # what was told of what is left counts for longer
    hub.time.now += 900
    hub.forget()
    await hub.pull(OPEN)
    assert hub.fake.askers(OPEN) == {"ann"}


async def test_each_is_tried_once(hub: Hub) -> None:
    """When all are answered 429, that is the answer, however short the pause they were told."""
    hub.limit.used.update(ann=20, bob=20)
    hub.limit.retry_after = "0"
    with pytest.raises(UpstreamError, match="429"):
        await hub.pull(OPEN)
    assert dict(hub.limit.refused) == {"ann": 1, "bob": 1}


async def test_the_last_tenth_of_each_is_used_too(hub: Hub) -> None:
    """When the budgets of all are out, the first that has not been answered 429 goes on."""
    await hub.pull(OPEN, 40)
    assert (hub.limit.left("ann"), hub.limit.left("bob")) == (0, 0)
    assert hub.limit.refused["ann"] == 1


async def test_a_refused_password_leads_to_the_next_account(hub: Hub) -> None:
    """The repository has seen no token of the first, so it may be private."""
    del hub.auth.users["ann"]
    await hub.pull(CLOSED)
    assert hub.fake.askers(CLOSED) == {"bob", ""}
    assert hub.registry.accounts.budget_level(CLOSED) is PLENTY


async def test_refused_basic_password_leads_to_the_next_account(hub: Hub) -> None:
    """A registry without a token server refuses a password as clearly as one that has it."""
    hub.fake.auth = BasicAuth("bob", "geheim-b")
    await hub.pull(OPEN)
    await hub.pull(OPEN)
    logins = [basic_login(seen.headers.get("Authorization")) for seen in hub.fake.log]
    assert logins == [None, ("ann", "geheim-a"), None, ("bob", "geheim-b"), ("bob", "geheim-b")]
    assert [account.state()["refused"] for account in hub.registry.accounts.all] == [True, False]


async def test_refused_password_is_in_the_metrics(hub: Hub) -> None:
    """One gauge for each account that has a password: 1 until it is accepted."""
    metrics = Metrics()
    del hub.auth.users["ann"]
    await hub.pull(OPEN)
    for account in hub.registry.accounts.all:
        account.report(metrics, "docker.io")
    hub.registry.accounts.anonymous.report(metrics, "docker.io")
    text = (await asyncio.to_thread(metrics.render))[0].decode()
    gauges = [line for line in text.splitlines() if line.startswith("registry_mirror_account_refused{")]
    assert gauges == [
        'registry_mirror_account_refused{account="ann",upstream="docker.io"} 1.0',
        'registry_mirror_account_refused{account="bob",upstream="docker.io"} 0.0',
    ]


async def test_all_passwords_refused(hub: Hub) -> None:
    """As with one account: denied, and told why, without a password in it."""
    hub.auth.users.clear()
    with pytest.raises(UpstreamError, match="incorrect username or password") as caught:
        await hub.pull(CLOSED)
    assert caught.value.failure is Failure.DENIED
    assert "geheim" not in str(caught.value)


async def test_what_an_account_may_not_read_is_not_tried_with_the_other(hub: Hub) -> None:
    """Denied is an answer, and the repository stays with who was denied."""
    hub.fake.fault(Fault(status=403), CLOSED)
    with pytest.raises(UpstreamError, match="403"):
        await hub.pull(CLOSED)
    hub.limit.used["ann"] = 17
    await hub.pull(OPEN)
    await hub.pull(CLOSED)
    assert hub.fake.askers(CLOSED) == {"ann", ""}


async def test_who_could_not_read_does_not_keep_a_repository_for_ever(hub: Hub) -> None:
    """The second account was denied while it was its turn: later the first may find out."""
    await hub.pull(OPEN, 18)
    hub.fake.fault(Fault(status=403), CLOSED)
    with pytest.raises(UpstreamError, match="403"):
        await hub.pull(CLOSED)
    hub.time.now += CLAIM_TTL
    hub.forget()
    await hub.pull(CLOSED)
    assert hub.fake.askers(CLOSED) == {"ann"}


async def test_whether_it_is_public_is_asked_again(hub: Hub) -> None:
    """After an hour when it was, after some minutes when it was not."""
    await hub.pull(CLOSED, 20)
    hub.forget()
    for seconds, probes in ((0, 0), (PRIVATE_TTL, 1), (PUBLIC_TTL - 1, 1), (1, 2)):
        hub.time.now += seconds
        hub.auth.private.clear()
        hub.limit.used["ann"] = 20
        hub.registry.accounts.all[0].rate_limit.observe({"ratelimit-remaining": "0;w=900"}, 200)
        if probes:
            await hub.pull(CLOSED)
        else:
            with pytest.raises(UpstreamError, match="429"):
                await hub.pull(CLOSED)
        anonymous = [each for each in hub.fake.log if each.method == "HEAD" and each.status == 200]
        assert len(anonymous) == probes


async def test_blobs_are_asked_for_with_the_same_account(hub: Hub) -> None:
    """A public blob proves a public repository as well as a manifest does."""
    await hub.pull(OPEN, 18)
    digest = hub.fake.add_blob(OPEN, b"blob")
    assert await hub.registry.get_blob(OPEN, digest, 10) == b"blob"
    assert hub.fake.log[-1].method == "GET"
    assert hub.auth.owner(hub.fake.log[-1].headers["Authorization"]) == "bob"


async def test_pressure_is_that_of_the_account_with_most_left(hub: Hub) -> None:
    """But for a private repository it is that of its own account."""
    pressure = hub.registry.accounts.budget_level
    await hub.pull(CLOSED, 16)
    assert (pressure(OPEN), pressure(CLOSED)) == (PLENTY, PLENTY)
    await hub.pull(CLOSED, 3)  # out, and known to be private
    assert (pressure(OPEN), pressure(CLOSED)) == (PLENTY, OUT)
    await hub.pull(OPEN, 12)
    assert pressure(OPEN) is SPARE
    await hub.pull(OPEN, 4)
    assert pressure(OPEN) is LOW


async def test_what_is_remembered_has_an_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository that was not asked for the longest is forgotten."""
    monkeypatch.setattr(accounts, "MAX_REPOSITORIES", 2)
    for name in (OPEN, OTHER, OPEN, CLOSED):
        await hub.pull(name)
    assert list(hub.registry.accounts._claims) == [OPEN, CLOSED]
    hub.limit.used["ann"] = 20
    for _ in range(2):
        for name in (OPEN, OTHER, CLOSED):
            with_bob = hub.limit.used["bob"]
            await hub.pull(name)
            assert hub.limit.used["bob"] == with_bob + 1 or name == CLOSED
    assert len(hub.registry.accounts._visibility) <= 2


async def test_no_secret_in_the_log(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """It says which account has how much left, and nothing that opens it."""
    await hub.pull(OPEN, 20)
    shown = capsys.readouterr().out + repr(hub.registry.accounts.all)
    assert "rate limit" in shown
    assert "ann" in shown
    assert "geheim" not in shown
    assert "token-" not in shown
    assert hub.registry.accounts.redacted("geheim-b, geheim-a") == "***, ***"


async def test_without_accounts_it_is_anonymous() -> None:
    """One budget, nothing to choose, and no HEAD about anything."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
        fake.add_image(OPEN, "latest", [])
        fake.limit = RateLimit(10)
        for _ in range(10):
            await registry.get_manifest(OPEN, LATEST)
        with pytest.raises(UpstreamError, match="429"):
            await registry.get_manifest(OPEN, LATEST)
        (account,) = registry.accounts.all
        assert (account.name, fake.requests("HEAD")) == ("anonymous", 0)
        assert account.rate_limit.reading is not None
        assert account.rate_limit.reading.source == "203.0.113.7"


async def test_only_the_upstream_itself_tells_of_its_limits() -> None:
    """Not where blobs are redirected to, and not the token server."""
    reading = {"ratelimit-limit": "100", "ratelimit-remaining": "0"}
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
        digest = fake.add_blob(OPEN, b"blob")
        fake.auth, fake.cdn = TokenAuth(), True
        fake.fault(Fault(headers=reading, cdn=True))
        assert await registry.get_blob(OPEN, digest, 10) == b"blob"
        fake.auth.issued.clear()
        fake.fault(Fault(status=429, headers={**reading, "Retry-After": "60"}), "/token")
        with pytest.raises(UpstreamError, match="429"):
            await registry.get_blob(OPEN, digest, 10)
        (account,) = registry.accounts.all
        assert (account.rate_limit.reading, account.rate_limit.budget_level, account.rate_limit.refused) == (
            None,
            PLENTY,
            False,
        )
