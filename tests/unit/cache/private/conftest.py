"""Fixtures: a mirror with an account at quay.io, which lets clients in by their own credentials."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.cache.private.private_content import PrivateContent
from tests.fakes.access import TokenAuth
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, configured, serving

DAY = 24 * 3600.0


@dataclass
class Scene:
    """The registry, the private content of the mirror, and the time."""

    quay: FakeRegistry
    content: PrivateContent
    now: float = 1_700_000_000.0


@pytest.fixture
async def scene(quay: FakeRegistry, tmp_path: Path) -> AsyncIterator[Scene]:
    for repository in ("org/secret", "org/open"):
        quay.add_image(repository, "1", [b"layer"])
    quay.auth = TokenAuth(
        user="u", password="p", private={"org/secret"}, users={"me": "x"}, readers={"org/secret": {"u", "me"}}
    )
    login = {"username": "u", "password": "p", "private": "as-upstream", "recheck_access": DAY}
    config = configured(
        tmp_path / "cache",
        {"quay.io": quay.url, "docker.io": quay.url},
        upstream_of={"quay.io": login},
        tags={"fallback_after": NEVER},
    )
    async with serving(config, lambda: found.now) as mirror:
        found = Scene(quay, mirror.service.cache.private)
        yield found
