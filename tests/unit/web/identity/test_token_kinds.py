"""Kinds of tokens that a mirror takes."""

import asyncio
import subprocess
import sys
from pathlib import Path

from mirror.config.schema import Config
from mirror.service.service import Service
from mirror.web.identity.issued import JwtAuthenticator
from mirror.web.identity.token_kinds import token_authenticators
from mirror.web.identity.tokens import TokenAuthenticator
from tests.running import configured


async def kinds_of(config: Config) -> list[type]:
    service = await Service.open(config)
    kinds = token_authenticators(config, service)
    for each in kinds:
        await each.close()
    await service.close()
    return [type(each) for each in kinds]


async def test_tokens_of_issuers_are_taken_where_there_are_issuers(tmp_path: Path) -> None:
    upstream = {"hub.test": "http://127.0.0.1:1"}
    issuer = {"name": "ci", "issuer": "https://ci.test", "audience": ["mirror"]}
    plain = await asyncio.to_thread(configured, tmp_path, upstream)
    assert await kinds_of(plain) == [TokenAuthenticator]
    both = await asyncio.to_thread(configured, tmp_path, upstream, issuers=[issuer])
    assert await kinds_of(both) == [TokenAuthenticator, JwtAuthenticator]


def test_tokens_of_issuers_are_imported_where_there_are_issuers() -> None:
    """Cryptography takes megabytes and a tenth of a second of each start."""
    names = "jwt", "cryptography", "mirror.upstream.issuers", "mirror.store.tokens"
    code = f"import sys, mirror.web.serving.server; sys.exit(any(name in sys.modules for name in {names}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
