"""Tokens as a use case: the secret is returned once and stored nowhere."""

import time
from pathlib import Path

import pytest

from mirror.access.rules import Action
from mirror.access.tokens import TokenTable
from mirror.manage.management import Management
from mirror.manage.tokens import WantedToken, create_token, tokens_of
from mirror.store.tokens.token_store import TokenExists
from tests.fakes.cached import open_folder


def test_token_is_created_with_its_limits(tmp_path: Path) -> None:
    """No file of the folder has the secret."""
    folder = open_folder(tmp_path)
    wanted = WantedToken("ci", 60.0, ("docker.io/*",), (Action.PULL,))
    secret, entry = create_token(folder, wanted)
    assert TokenTable(tokens_of(folder).all()).find(secret) == entry
    assert (entry.name, entry.repositories, entry.actions) == ("ci", ("docker.io/*",), (Action.PULL,))
    assert entry.expires is not None
    assert 0 < entry.expires - time.time() <= 60
    folder.close()
    files = [each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()]
    assert files
    assert not any(secret.encode() in data for data in files)


async def test_tokens_of_an_event_loop(tmp_path: Path) -> None:
    """The facade does the same in its thread."""
    management = await Management.open(tmp_path)
    _, entry = await management.create_token(WantedToken("ci"))
    with pytest.raises(TokenExists):
        await management.create_token(WantedToken("ci"))
    assert [each.entry for each in await management.tokens()] == [entry]
    assert await management.revoke_token("ci")
    assert not await management.revoke_token("ci")
    await management.aclose()
