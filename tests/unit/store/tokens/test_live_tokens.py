"""Tokens of a serving process: revoked at once, restored, used."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.access.tokens import TokenEntry, digest_of, new_secret
from mirror.store.invalidation import Epoch
from mirror.store.tokens import live_tokens
from mirror.store.tokens.live_tokens import LiveTokens
from mirror.store.tokens.token_store import TokenStore

SECRET = new_secret()
ONE = TokenEntry("one", digest_of(SECRET), 1.0)


@pytest.fixture
def operator(tmp_path: Path) -> TokenStore:
    """Another process on the same folder."""
    return TokenStore(tmp_path, Epoch(tmp_path / "generation"))


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveTokens]:
    """The tokens of a serving process, at second 1000."""
    epoch = await asyncio.to_thread(Epoch, tmp_path / "generation")
    tokens = LiveTokens(tmp_path, epoch, lambda: 1000.0)
    yield tokens
    await tokens.close()


async def test_token_is_good_until_it_is_revoked(live: LiveTokens, operator: TokenStore) -> None:
    """Each look-up knows what was changed before it began."""
    for _ in range(2):
        assert await live.find(SECRET) is None
        await asyncio.to_thread(operator.add, ONE)
        found = await asyncio.gather(*(live.find(SECRET) for _ in range(5)))
        assert found == [ONE] * 5
        await asyncio.to_thread(operator.remove, "one")
    assert await live.find(SECRET) is None


async def test_token_uses_are_written_together(
    live: LiveTokens, operator: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One timer for all uses until it fires; the rest is written at the end."""
    monkeypatch.setattr(live_tokens, "LOOK_SECONDS", 0.0)
    await asyncio.to_thread(operator.add, ONE)
    assert await live.find(SECRET) == ONE
    for _ in range(3):
        live.note_use(ONE)
    while (await asyncio.to_thread(operator.listed))[0].used is None:  # noqa: ASYNC110  # a file is no event
        await asyncio.sleep(0)
    assert [each.used for each in await asyncio.to_thread(operator.listed)] == [1000.0]


async def test_token_uses_are_written_at_the_end(live: LiveTokens, operator: TokenStore) -> None:
    await asyncio.to_thread(operator.add, ONE)
    live.note_use(ONE)
    await live.close()
    assert [each.used for each in await asyncio.to_thread(operator.listed)] == [1000.0]


async def test_token_file_from_a_backup_is_taken_up(
    live: LiveTokens, operator: TokenStore, tmp_path: Path
) -> None:
    """A file that was copied there tells nobody; the next look at its signature does."""
    await asyncio.to_thread(operator.add, ONE)
    backup = await asyncio.to_thread((tmp_path / "tokens").read_bytes)
    await asyncio.to_thread(operator.remove, "one")
    assert await live.find(SECRET) is None
    await asyncio.to_thread((tmp_path / "tokens").write_bytes, backup)
    await live.close()
    assert await live.find(SECRET) == ONE


async def test_token_file_that_cannot_be_read_opens_nothing(
    live: LiveTokens, operator: TokenStore, tmp_path: Path
) -> None:
    """A token that may have been revoked is not taken; the log says why."""
    await asyncio.to_thread(operator.add, ONE)
    assert await live.find(SECRET) == ONE

    def replace_by_a_link() -> None:
        (tmp_path / "tokens").rename(tmp_path / "elsewhere")
        (tmp_path / "tokens").symlink_to(tmp_path / "elsewhere")
        Epoch(tmp_path / "generation").note_access_change()

    await asyncio.to_thread(replace_by_a_link)
    with capture_logs() as logs:
        assert await live.find(SECRET) is None
        assert await live.find(SECRET) is None
    assert len(logs) == 1
    assert "none is taken" in logs[0]["event"]
