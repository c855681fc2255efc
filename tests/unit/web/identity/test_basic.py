"""Users who log in: verified off the loop, remembered for a while, and slowed down when they guess."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import bcrypt
import pytest

from mirror.util.fairness.client import set_client
from mirror.web.identity import basic
from mirror.web.identity.basic import BUSY_SECONDS, VERDICT_SECONDS, WAITING, BasicUsers
from mirror.web.identity.credentials import Claim, Credentials, NotVerified, WrongCredentials, parse_login
from mirror.web.identity.failures import MOST_FOR_USER
from mirror.web.identity.passwords import is_password
from mirror.web.identity.users import Users

HASHES = {
    name: bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    for name, password in (("alice", "wonder"), ("bob", "builder"))
}


def lines(hashes: dict[str, str]) -> str:
    return "".join(f"{name}:{hashed}\n" for name, hashed in hashes.items())


class Scene:
    """Users, a clock, and a count of the passwords that were hashed."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.hashed: list[str] = []
        self.file = file
        self.users = Users(file)
        self.basic = BasicUsers(self.users, lambda: self.now)
        original = is_password

        def count(against: str, password: str) -> bool:
            self.hashed.append(password)
            return original(against, password)

        monkeypatch.setattr(basic, "is_password", count)

    async def write(self, **hashes: str) -> None:
        """Write the users, and have them read."""
        await asyncio.to_thread(self.file.write_text, lines(hashes))
        await self.users.refresh()

    async def ask(self, user: str, password: str, address: str = "10.0.0.1") -> Claim:
        set_client(address)
        value = b64encode(f"{user}:{password}".encode()).decode()
        claim = await self.basic.claim(Credentials(address, "/v2/", "basic", value, parse_login(value)))
        assert claim is not None
        return claim

    async def refused(self, user: str, password: str, address: str = "10.0.0.1") -> WrongCredentials:
        with pytest.raises(WrongCredentials) as refused:
            await self.ask(user, password, address)
        return refused.value


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    file = tmp_path / "users"
    await asyncio.to_thread(file.write_text, lines(HASHES))
    found = Scene(file, monkeypatch)
    await found.basic.start()
    yield found
    await found.basic.close()


async def test_login_proves_the_user(scene: Scene) -> None:
    assert (await scene.ask("alice", "wonder")).names == ("user:alice",)
    assert (await scene.ask("bob", "builder")).names == ("user:bob",)


@pytest.mark.parametrize(
    ("user", "password"), [("alice", "builder"), ("alice", ""), ("carol", "wonder"), ("ALICE", "wonder")]
)
async def test_wrong_login_is_refused_without_a_word_about_which_half(
    scene: Scene, user: str, password: str
) -> None:
    refused = await scene.refused(user, password)
    assert refused.message == f"wrong user or password for {user!r}"
    assert len(scene.hashed) == 1  # for an unknown user, too


async def test_other_credentials_are_another_authenticators(scene: Scene) -> None:
    assert await scene.basic.claim(Credentials("10.0.0.1")) is None
    assert await scene.basic.claim(Credentials("10.0.0.1", "/", "bearer", "x")) is None
    with pytest.raises(WrongCredentials):
        await scene.basic.claim(Credentials("10.0.0.1", "/", "basic", "x"))


async def test_verdict_is_remembered_for_a_minute(scene: Scene) -> None:
    """A right one and a wrong one."""
    for _ in range(3):
        await scene.ask("alice", "wonder")
        await scene.refused("alice", "wrong")
    assert scene.hashed == ["wonder", "wrong"]
    scene.now = VERDICT_SECONDS - 1
    assert (await scene.ask("alice", "wonder")).seconds == 1.0
    scene.now = VERDICT_SECONDS
    assert (await scene.ask("alice", "wonder")).seconds == VERDICT_SECONDS
    assert scene.hashed == ["wonder", "wrong", "wonder"]


async def test_no_password_is_kept(scene: Scene) -> None:
    """A verdict is found by a hash with a key of this process."""
    await scene.ask("alice", "wonder")
    kept = repr(list(scene.basic._verdicts.items()))
    assert "wonder" not in kept
    assert "alice" not in kept


async def test_same_login_at_once_is_hashed_once(scene: Scene) -> None:
    await asyncio.gather(*(scene.ask("alice", "wonder") for _ in range(20)))
    assert scene.hashed == ["wonder"]


async def test_guessing_is_slowed_down(scene: Scene) -> None:
    """The user from elsewhere, another user from there, and who is known there already are not concerned."""
    await scene.ask("bob", "builder")
    for number in range(MOST_FOR_USER):
        assert (await scene.refused("alice", f"guess{number}")).status == 401
    refused = await scene.refused("alice", "wonder")
    assert isinstance(refused, NotVerified)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "60")
    assert len(scene.hashed) == 1 + MOST_FOR_USER
    await scene.ask("alice", "wonder", "10.0.0.2")
    await scene.ask("bob", "builder")
    scene.now = 60.0
    await scene.ask("alice", "wonder")


async def test_guessing_does_not_keep_out_who_was_known_there(scene: Scene) -> None:
    """One machine behind an address guesses for longer than the verdict of the others is remembered."""
    await scene.ask("alice", "wonder")
    scene.now = VERDICT_SECONDS
    for number in range(MOST_FOR_USER):
        await scene.refused("alice", f"guess{number}")
    await scene.ask("alice", "wonder")
    assert isinstance(await scene.refused("alice", "guess"), NotVerified)
    await scene.write(alice=HASHES["bob"])
    assert isinstance(await scene.refused("alice", "wonder"), NotVerified)


async def test_flood_leaves_room_for_other_clients(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that wait are bounded; the client with the most is refused."""
    guesses = [asyncio.ensure_future(scene.refused(f"user{each}", "x")) for each in range(WAITING * 2)]
    await asyncio.sleep(0)
    assert (await scene.ask("alice", "wonder", "10.0.0.2")).names == ("user:alice",)
    answers = await asyncio.gather(*guesses)
    busy = [each for each in answers if isinstance(each, NotVerified)]
    assert len(busy) > WAITING
    assert {each.headers["Retry-After"] for each in busy} == {str(BUSY_SECONDS)}


async def test_claim_is_found_again_while_the_password_is_the_same(scene: Scene) -> None:
    """A token ends with the user, and with the password that it was given for."""
    handle = (await scene.ask("alice", "wonder")).handle
    recalled = await scene.basic.recall(handle)
    assert recalled is not None
    assert (recalled.names, recalled.handle) == (("user:alice",), handle)
    await scene.write(alice=HASHES["bob"])
    assert await scene.basic.recall(handle) is None
    await scene.write(bob=HASHES["bob"])
    assert await scene.basic.recall(handle) is None


@pytest.mark.parametrize(
    "handle", ["", "user", "user:", "user:x", "user:None:carol", "token:1", "user::alice"]
)
async def test_foreign_handle_is_no_claim(scene: Scene, handle: str) -> None:
    assert await scene.basic.recall(handle) is None


async def test_removed_user_is_unknown_although_remembered(scene: Scene) -> None:
    await scene.ask("alice", "wonder")
    await scene.write(bob=HASHES["bob"])
    await scene.refused("alice", "wonder")
