"""Accounts, used one after another: tokens and budget of each, and private repositories."""

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
    """Registry with tokens and a limit of 20 for each user, and a client with two accounts there."""

    fake: FakeRegistry
    auth: TokenAuth
    limit: RateLimit
    registry: RegistryClient
    time: FakeTime

    async def pull(self, repository: str, times: int = 1) -> None:
        for _ in range(times):
            await self.registry.get_manifest(repository, LATEST)

    def forget(self) -> None:
        """Clear the log of requests."""
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


async def test_accounts_first_is_used_until_its_budget_is_out(hub: Hub) -> None:
    """The next account is used before the first 429."""
    await hub.pull(OPEN, 18)
    assert (hub.limit.used["ann"], hub.limit.used["bob"]) == (18, 0)
    await hub.pull(OPEN)
    assert (hub.limit.used["ann"], hub.limit.used["bob"]) == (18, 1)
    assert hub.limit.refused.total() == 0


async def test_accounts_probe_visibility_only_when_it_matters(hub: Hub) -> None:
    """One HEAD tells if a repository is public, and is remembered."""
    await hub.pull(OPEN, 18)
    assert hub.fake.askers(OPEN) == {"ann", ""}  # only the first request is challenged
    hub.forget()
    await hub.pull(OPEN, 5)
    assert hub.fake.askers(OPEN) == {"bob", ""}
    assert hub.fake.requests("HEAD", OPEN) == 2  # challenged once more: it has no token yet


async def test_accounts_ask_for_a_private_repository_with_one(hub: Hub) -> None:
    """A 429 is the answer even while another account has requests left."""
    await hub.pull(CLOSED, 20)
    with pytest.raises(UpstreamError, match="429") as caught:
        await hub.pull(CLOSED)
    assert caught.value.failure is Failure.RATE_LIMITED
    assert hub.fake.askers(CLOSED) == {"ann", ""}
    await hub.pull(OPEN)
    assert hub.limit.used["bob"] == 1


async def test_accounts_claim_stays_with_the_first_reader(hub: Hub) -> None:
    """The second account keeps its repository when the first has requests left again."""
    await hub.pull(OPEN, 18)
    await hub.pull(CLOSED, 2)
    hub.limit.used.clear()
    hub.time.now += 6 * 3600
    await hub.pull(OPEN)
    await hub.pull(CLOSED, 20)
    assert (hub.limit.used["ann"], hub.limit.used["bob"]) == (1, 20)
    assert hub.fake.askers(CLOSED) == {"bob", ""}


async def test_accounts_concurrent_requests_choose_alike(hub: Hub) -> None:
    """The choice is made before anything is awaited."""
    hub.limit.used["ann"] = 17
    await hub.pull(OPEN)
    hub.forget()
    await asyncio.gather(*(hub.pull(CLOSED) for _ in range(8)))
    assert hub.fake.askers(CLOSED) == {"bob", ""}


async def test_accounts_429_leads_to_the_next_account(hub: Hub) -> None:
    """The client sees no 429; the first account pauses for its Retry-After."""
    hub.limit.used["ann"] = 20
    hub.limit.retry_after = "100"
    await hub.pull(OPEN)
    assert (hub.limit.refused["ann"], hub.limit.used["bob"]) == (1, 1)
    hub.fake.limit = None
    hub.time.now += 100
    hub.forget()
    await hub.pull(OPEN)
    assert hub.fake.askers(OPEN) == {"bob"}  # the reading of its budget counts for longer
    hub.time.now += 900
    hub.forget()
    await hub.pull(OPEN)
    assert hub.fake.askers(OPEN) == {"ann"}


async def test_accounts_are_tried_once_each(hub: Hub) -> None:
    """A 429 to all accounts is the answer, even after a short Retry-After."""
    hub.limit.used.update(ann=20, bob=20)
    hub.limit.retry_after = "0"
    with pytest.raises(UpstreamError, match="429"):
        await hub.pull(OPEN)
    assert dict(hub.limit.refused) == {"ann": 1, "bob": 1}


async def test_accounts_use_their_last_tenth(hub: Hub) -> None:
    """The first account that was not answered 429 goes on when the budgets of all are out."""
    await hub.pull(OPEN, 40)
    assert (hub.limit.left("ann"), hub.limit.left("bob")) == (0, 0)
    assert hub.limit.refused["ann"] == 1


async def test_refused_password_leads_to_the_next_account(hub: Hub) -> None:
    """The repository has seen no token of the first account, so it may be private."""
    del hub.auth.users["ann"]
    await hub.pull(CLOSED)
    assert hub.fake.askers(CLOSED) == {"bob", ""}
    assert hub.registry.accounts.budget_level(CLOSED) is PLENTY


async def test_refused_basic_password_leads_to_the_next_account(hub: Hub) -> None:
    """Basic authentication refuses a password as clearly as a token server does."""
    hub.fake.auth = BasicAuth("bob", "geheim-b")
    await hub.pull(OPEN)
    await hub.pull(OPEN)
    logins = [basic_login(seen.headers.get("Authorization")) for seen in hub.fake.log]
    assert logins == [None, ("ann", "geheim-a"), None, ("bob", "geheim-b"), ("bob", "geheim-b")]
    assert [account.state()["refused"] for account in hub.registry.accounts.all] == [True, False]


async def test_denied_repository_is_not_tried_with_the_next_account(hub: Hub) -> None:
    """A 401 for one repository, from a registry that accepts the password, is a denial: it is final."""
    hub.fake.auth = BasicAuth("ann", "geheim-a", denied={CLOSED})
    await hub.pull(OPEN)
    for _ in range(2):
        with pytest.raises(UpstreamError, match="not for org/closed"):
            await hub.pull(CLOSED)
    logins = {basic_login(seen.headers.get("Authorization")) for seen in hub.fake.log}
    assert logins == {None, ("ann", "geheim-a")}


async def test_refused_password_is_in_the_metrics(hub: Hub) -> None:
    """One gauge for each account with a password: 1 until the password is accepted."""
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


async def test_refused_passwords_of_all_accounts(hub: Hub) -> None:
    """The request is denied with the reason, without a password in it."""
    hub.auth.users.clear()
    with pytest.raises(UpstreamError, match="incorrect username or password") as caught:
        await hub.pull(CLOSED)
    assert caught.value.failure is Failure.DENIED
    assert "geheim" not in str(caught.value)


async def test_accounts_denial_is_final(hub: Hub) -> None:
    """A denial is an answer, and the repository stays with the account that was denied."""
    hub.fake.fault(Fault(status=403), CLOSED)
    with pytest.raises(UpstreamError, match="403"):
        await hub.pull(CLOSED)
    hub.limit.used["ann"] = 17
    await hub.pull(OPEN)
    await hub.pull(CLOSED)
    assert hub.fake.askers(CLOSED) == {"ann", ""}


async def test_accounts_claim_without_a_read_expires(hub: Hub) -> None:
    """The second account was denied in its turn: later the first account may ask."""
    await hub.pull(OPEN, 18)
    hub.fake.fault(Fault(status=403), CLOSED)
    with pytest.raises(UpstreamError, match="403"):
        await hub.pull(CLOSED)
    hub.time.now += CLAIM_TTL
    hub.forget()
    await hub.pull(CLOSED)
    assert hub.fake.askers(CLOSED) == {"ann"}


async def test_accounts_visibility_expires(hub: Hub) -> None:
    """A public repository is probed again after an hour, a private one after some minutes."""
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


async def test_accounts_of_blobs(hub: Hub) -> None:
    """A public blob proves a public repository as well as a manifest does."""
    await hub.pull(OPEN, 18)
    digest = hub.fake.add_blob(OPEN, b"blob")
    assert await hub.registry.get_blob(OPEN, digest, 10) == b"blob"
    assert hub.fake.log[-1].method == "GET"
    assert hub.auth.owner(hub.fake.log[-1].headers["Authorization"]) == "bob"


async def test_budget_level_of_several_accounts(hub: Hub) -> None:
    """The budget is that of the account with most left; of a private repository, that of its own account."""
    level = hub.registry.accounts.budget_level
    await hub.pull(CLOSED, 16)
    assert (level(OPEN), level(CLOSED)) == (PLENTY, PLENTY)
    await hub.pull(CLOSED, 3)  # out, and known to be private
    assert (level(OPEN), level(CLOSED)) == (PLENTY, OUT)
    await hub.pull(OPEN, 12)
    assert level(OPEN) is SPARE
    await hub.pull(OPEN, 4)
    assert level(OPEN) is LOW


async def test_accounts_memory_is_bounded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository that was asked for longest ago is dropped."""
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


async def test_accounts_log_has_no_secret(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The log says which account has how much left, without passwords and tokens."""
    await hub.pull(OPEN, 20)
    shown = capsys.readouterr().out + repr(hub.registry.accounts.all)
    assert "rate limit" in shown
    assert "ann" in shown
    assert "geheim" not in shown
    assert "token-" not in shown
    assert hub.registry.accounts.redacted("geheim-b, geheim-a") == "***, ***"


async def test_accounts_none_configured() -> None:
    """One anonymous budget, no choice, and no HEAD."""
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


async def test_rate_limit_is_learnt_from_the_upstream_only() -> None:
    """Headers of redirect targets and of the token server do not count."""
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
