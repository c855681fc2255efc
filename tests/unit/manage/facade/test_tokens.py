"""Tokens through the facade."""

from pathlib import Path

import pytest

from mirror.manage.management import Management
from mirror.manage.tokens import WantedToken
from mirror.store.tokens.token_store import TokenExists


async def test_tokens_of_an_event_loop(tmp_path: Path) -> None:
    """The facade does the same in its thread."""
    management = await Management.open(tmp_path)
    _, entry = await management.tokens.create(WantedToken("ci"))
    with pytest.raises(TokenExists):
        await management.tokens.create(WantedToken("ci"))
    assert [each.entry for each in await management.tokens.all()] == [entry]
    assert await management.tokens.revoke("ci")
    assert not await management.tokens.revoke("ci")
    await management.aclose()
