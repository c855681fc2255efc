"""Identification as the configuration wants it."""

import asyncio
from pathlib import Path

from mirror.service.service import Service
from mirror.web.identity.configured import configured as identification_of
from tests.running import configured


async def made(tmp_path: Path, **access: object) -> tuple[list[str], bool]:
    upstreams = {"hub.test": "http://127.0.0.1:1"}
    config = await asyncio.to_thread(configured, tmp_path / "cache", upstreams, access=access)
    service = await Service.open(config)
    found, tokens = identification_of(config, service)
    await service.close()
    return [type(each).__name__ for each in found.authenticators], tokens is not None


async def test_tokens_alone_are_verified_by_default(tmp_path: Path) -> None:
    """An operator creates one while the mirror runs."""
    assert await made(tmp_path) == (["TokenAuthenticator"], False)


async def test_kinds_of_credentials_of_the_configuration(tmp_path: Path) -> None:
    users = tmp_path / "users"
    await asyncio.to_thread(users.write_text, "")
    assert await made(tmp_path, htpasswd=users) == (["TokenAuthenticator", "BasicUsers"], False)
    both = await made(tmp_path, htpasswd=users, login_hosts=["mirror.lan"])
    assert both == (["SignedTokens", "TokenAuthenticator", "BasicUsers"], True)
