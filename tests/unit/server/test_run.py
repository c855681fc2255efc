"""Reloading in one process; tests/unit/cli/test_app.py and tests/e2e/test_workers.py run whole mirrors."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.config.loader import ConfigError
from mirror.config.schema import Config
from mirror.config.server import ServerSettings
from mirror.server.run import _reload
from tests.fakes.tls import Authority
from tests.running import configured


def config_of(folder: Path, server_file: Path | None, **server: object) -> Config:
    config = configured(folder / "cache", {"docker.io": "http://127.0.0.1:9"})
    section = ServerSettings.model_validate(
        {"tls_certificate": server_file, "tls_key": server_file, **server}
    )
    return config.model_copy(update={"server": section})


async def test_reload_renews_the_certificate_only(tmp_path: Path) -> None:
    """Other changes get a warning that they need a restart."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    old = await asyncio.to_thread(config_of, tmp_path, authority.server_file)
    new = await asyncio.to_thread(config_of, tmp_path, authority.server_file, header_timeout=1)
    context = await asyncio.to_thread(old.server.tls)
    with capture_logs() as lines:
        await _reload(old, lambda: old, context)
        await _reload(old, lambda: new, context)
    assert [line["log_level"] for line in lines] == ["info", "info", "warning"]
    assert "restart" in lines[-1]["event"]


async def test_reload_without_tls_cannot_add_tls(tmp_path: Path) -> None:
    """A certificate in the new configuration is a change like any other."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    plain = await asyncio.to_thread(config_of, tmp_path, None)
    encrypted = await asyncio.to_thread(config_of, tmp_path, authority.server_file)
    with capture_logs() as lines:
        await _reload(plain, lambda: encrypted, None)
    (line,) = lines
    assert "restart" in line["event"]


async def test_reload_without_anything_to_do_says_so(tmp_path: Path) -> None:
    """An unchanged configuration without a certificate: one line, at level info."""
    config = await asyncio.to_thread(config_of, tmp_path, None)
    with capture_logs() as lines:
        await _reload(config, lambda: config, None)
    (line,) = lines
    assert (line["log_level"], "nothing to do" in line["event"]) == ("info", True)


@pytest.mark.parametrize("error", [ConfigError("file x: nonsense"), OSError("gone")])
async def test_reload_of_a_wrong_configuration_is_reported(tmp_path: Path, error: Exception) -> None:
    """The old certificate stays in use."""
    config = await asyncio.to_thread(config_of, tmp_path, None)

    def load() -> Config:
        raise error

    with capture_logs() as lines:
        await _reload(config, load, None)
    (line,) = lines
    assert (line["log_level"], line["reason"]) == ("error", str(error))
