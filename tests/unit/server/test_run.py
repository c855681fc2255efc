"""One process, or several; how they behave is in test_cli.py and in tests/e2e/test_workers.py."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.config.loader import ConfigError
from mirror.config.schema import Config, ServerSettings
from mirror.server.run import _reload
from tests.fakes.tls import Authority
from tests.running import configured


def config_of(folder: Path, server_file: Path | None, **server: object) -> Config:
    config = configured(folder / "cache", {"docker.io": "http://127.0.0.1:9"})
    section = ServerSettings.model_validate(
        {"tls_certificate": server_file, "tls_key": server_file, **server}
    )
    return config.model_copy(update={"server": section})


async def test_one_process_takes_up_a_certificate_and_nothing_else(tmp_path: Path) -> None:
    """What else has changed is said to need a restart."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    old = await asyncio.to_thread(config_of, tmp_path, authority.server_file)
    new = await asyncio.to_thread(config_of, tmp_path, authority.server_file, header_timeout=1)
    context = await asyncio.to_thread(old.server.tls)
    with capture_logs() as lines:
        await _reload(old, lambda: old, context)
        await _reload(old, lambda: new, context)
    assert [line["log_level"] for line in lines] == ["info", "info", "warning"]
    assert "restart" in lines[-1]["event"]


async def test_a_plain_process_has_no_certificate_to_take_up(tmp_path: Path) -> None:
    """That one is given to it is a change like any other."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    plain = await asyncio.to_thread(config_of, tmp_path, None)
    encrypted = await asyncio.to_thread(config_of, tmp_path, authority.server_file)
    with capture_logs() as lines:
        await _reload(plain, lambda: encrypted, None)
    (line,) = lines
    assert "restart" in line["event"]


@pytest.mark.parametrize("error", [ConfigError("file x: nonsense"), OSError("gone")])
async def test_a_wrong_configuration_is_told_and_forgotten(tmp_path: Path, error: Exception) -> None:
    """The old certificate stays."""
    config = await asyncio.to_thread(config_of, tmp_path, None)

    def load() -> Config:
        raise error

    with capture_logs() as lines:
        await _reload(config, load, None)
    (line,) = lines
    assert (line["log_level"], line["reason"]) == ("error", str(error))
