"""A login that is kept fresh: one refresh for all, old credentials until a registry refuses them."""

import asyncio

import pytest
from structlog.testing import capture_logs

from mirror.credentials.credential import Answer, Credential, CredentialError
from mirror.credentials.login import REFRESHED_AT, RETRY, Login
from mirror.util.tasks import Tasks
from tests.fakes.upstream import FakeTime

OLD, NEW = Credential("me", "alt"), Credential("me", "neu")


class Source:
    """A source whose next answers a test gives; `gate` holds an answer back."""

    name, label, advice = "me", "a source", "its options"

    def __init__(self, *answers: Answer | CredentialError, initial: Answer | None = None) -> None:
        self.initial = initial
        self.answers = list(answers)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self) -> Answer:
        self.asked += 1
        await self.gate.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, CredentialError):
            raise answer
        return answer


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def login_of(source: Source, tasks: Tasks, time: FakeTime) -> Login:
    return Login("quay.io", source, tasks, time)


async def settled(login: Login) -> None:
    """Wait for the refresh that runs."""
    if login._running is not None:
        await asyncio.wait([login._running])


async def test_login_asks_once_for_all_that_wait(tasks: Tasks, time: FakeTime) -> None:
    """The answer is then used until it is no longer fresh."""
    source = Source(Answer(OLD, fresh=100))
    source.gate.clear()
    login = login_of(source, tasks, time)
    waiting = [asyncio.ensure_future(login.get()) for _ in range(20)]
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*waiting) == [OLD] * 20
    time.now += 99
    assert await login.get() is OLD
    assert source.asked == 1


async def test_login_is_refreshed_in_the_background(tasks: Tasks, time: FakeTime) -> None:
    """Nobody waits as long as the old credentials are good."""
    source = Source(Answer(OLD, fresh=100), Answer(NEW, fresh=100))
    login = login_of(source, tasks, time)
    await login.get()
    time.now += 100
    source.gate.clear()
    assert [await login.get() for _ in range(5)] == [OLD] * 5
    source.gate.set()
    await settled(login)
    assert (await login.get(), source.asked) == (NEW, 2)


async def test_login_is_refreshed_before_it_ends(tasks: Tasks, time: FakeTime) -> None:
    """After three quarters of the lifetime; after all of it the next request waits."""
    source = Source(Answer(OLD, lifetime=100), Answer(NEW, lifetime=100), Answer(OLD, lifetime=100))
    login = login_of(source, tasks, time)
    await login.get()
    time.now += 100 * REFRESHED_AT
    assert await login.get() is OLD
    await settled(login)
    assert await login.get() is NEW
    time.now += 100
    assert await login.get() is OLD
    assert source.asked == 3


async def test_login_keeps_old_credentials_while_its_source_fails(tasks: Tasks, time: FakeTime) -> None:
    """Expired ones too: the registry decides. One warning, and one line when it works again."""
    fault = CredentialError("broken")
    source = Source(Answer(OLD, lifetime=100), fault, fault, Answer(NEW))
    login = login_of(source, tasks, time)
    with capture_logs() as lines:
        await login.get()
        for _ in range(2):
            time.now += 100
            assert await login.get() is OLD
            await settled(login)
            assert await login.get() is OLD
        time.now += RETRY
        await login.get()
        await settled(login)
        assert await login.get() is NEW
    events = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert events == ["credentials not refreshed", "credentials refreshed again"]
    assert lines[0]["credentials"] == "the old ones are used"
    assert source.asked == 4


async def test_login_is_kept_when_a_failure_looks_like_none(tasks: Tasks, time: FakeTime) -> None:
    """A helper that is not sure takes nothing away; one that is sure does."""
    doubtful = Answer(None, fresh=60, note="none", doubtful=True)
    source = Source(Answer(OLD, fresh=100), doubtful, Answer(None, fresh=100, note="gone"))
    login = login_of(source, tasks, time)
    await login.get()
    held = []
    for _ in range(2):
        time.now += 100
        await login.get()
        await settled(login)
        held.append(await login.get())
    assert held == [OLD, None]


async def test_login_that_was_never_had_fails_at_once(tasks: Tasks, time: FakeTime) -> None:
    """One request waits for a source that hangs until it fails; later ones do not, and it is asked again."""
    source = Source(CredentialError("broken"), Answer(NEW))
    login = login_of(source, tasks, time)
    with pytest.raises(CredentialError, match="broken"):
        await login.get()
    assert login.absent
    time.now += RETRY
    source.gate.clear()
    with pytest.raises(CredentialError, match="broken"):
        await login.get()
    source.gate.set()
    await settled(login)
    assert await login.get() is NEW


async def test_login_of_nobody_is_said_once(tasks: Tasks, time: FakeTime) -> None:
    """The note of the source is a warning, until it says something else."""
    source = Source(*(Answer(None, fresh=10, note=note) for note in ("none", "none", "other")))
    login = login_of(source, tasks, time)
    with capture_logs() as lines:
        for _ in range(3):
            assert await login.get() is None
            await settled(login)
            time.now += 10
        await login.get()
    assert [line["note"] for line in lines if line["event"] == "no credentials"] == ["none", "other"]
    assert login.absent


async def test_login_that_is_refused_is_renewed_at_once(tasks: Tasks, time: FakeTime) -> None:
    """However fresh it is; all that were refused share one renewal."""
    source = Source(Answer(OLD), Answer(NEW))
    login = login_of(source, tasks, time)
    await login.get()
    time.now += RETRY
    assert await asyncio.gather(*(login.renew(OLD) for _ in range(9))) == [True] * 9
    assert await login.renew(OLD)  # by another request, after the renewal
    assert source.asked == 2
    assert set(login.secrets()) >= {"alt", "neu"}  # an upstream may still echo the old one


async def test_login_that_is_refused_waits_for_a_refresh_that_runs(tasks: Tasks, time: FakeTime) -> None:
    """The refresh has just begun, and brings what the registry will take."""
    source = Source(Answer(OLD, fresh=100), Answer(NEW, fresh=100))
    login = login_of(source, tasks, time)
    await login.get()
    time.now += 100
    source.gate.clear()
    assert await login.get() is OLD
    renewing = asyncio.ensure_future(login.renew(OLD))
    await asyncio.sleep(0)
    source.gate.set()
    assert await renewing
    assert (login.held, source.asked) == (NEW, 2)


async def test_login_that_stays_refused_is_not_asked_for_each_request(tasks: Tasks, time: FakeTime) -> None:
    """A program is not run for each request with a wrong password."""
    source = Source(Answer(OLD), Answer(OLD), CredentialError("broken"))
    login = login_of(source, tasks, time)
    await login.get()
    assert not await login.renew(OLD)  # just asked
    time.now += RETRY
    for _ in range(5):
        assert not await login.renew(OLD)
    assert source.asked == 2
    time.now += RETRY
    assert not await login.renew(OLD)
    assert (login.held, source.asked) == (OLD, 3)


async def test_login_with_an_initial_answer_asks_nothing(tasks: Tasks, time: FakeTime) -> None:
    """A password of the configuration is there from the beginning."""
    source = Source(initial=Answer(OLD))
    login = login_of(source, tasks, time)
    assert (login.held, await login.get(), source.asked) == (OLD, OLD, 0)
