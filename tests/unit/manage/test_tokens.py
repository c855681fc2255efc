"""Tokens as a use case: the secret is returned once and stored nowhere."""

import time
from pathlib import Path

from mirror.access.rules import Action
from mirror.access.tokens import TokenTable
from mirror.manage.tokens import WantedToken, create_token, tokens_of
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
