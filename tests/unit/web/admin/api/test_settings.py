"""Operations about settings: no secret is shown, and the rules are tried."""

import asyncio
import io
import json
from pathlib import Path

import pytest

from mirror.access.rules import Action
from mirror.config.loader import load
from mirror.config.schema import Config, LogSettings
from mirror.util.log import configure, get_logger
from tests.contract.test_pages_access import token
from tests.paged import paged
from tests.running import configured

log = get_logger("tests.settings")

SECRET = "correct-horse-battery"
RULES = [{"name": "no betas", "effect": "deny", "tags": ["*beta*"]}]


async def test_settings_show_no_secret(tmp_path: Path) -> None:
    """Passwords are masked, and tokens have none to show."""
    logins = {"upstream": {"username": "me", "password": SECRET}}
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"}, **logins)) as mirror:
        rows = {each["key"]: each for each in await mirror.api("settings")}
        assert rows["upstream.hub.test.username"]["value"] == "me"
        assert (rows["log.level"]["value"], rows["log.level"]["changed"]) == ("info", False)
        assert rows["fill.chunk_size"]["changed"] is True
        assert SECRET not in json.dumps(rows)
        assert await mirror.api("tokens") == await mirror.api("warm") == []
        for page in ("/settings", "/me", "/"):
            assert SECRET.encode() not in (await mirror.ask(page)).body


async def test_rules_are_tried(tmp_path: Path) -> None:
    """Visitors that may know the rules try them: where there are some, administrators alone."""
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    question = "access-test?address=10.1.2.3&reference=hub.test/team/app:1-beta"
    async with paged(config) as mirror:
        assert (await mirror.api(question))["allowed"] is True
        assert (await mirror.api(f"{question}&action=admin"))["allowed"] is False
        assert (await mirror.ask("/api/v1/access-test?address=x&reference=hub.test/a:1")).status == 422
        page = (await mirror.ask("/settings?address=10.1.2.3&reference=hub.test/a:1")).body
        assert b"the default of [access]" in page
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"}, rules=RULES)) as mirror:
        for path in (question, "settings", "rules", "tokens", "warm"):
            assert (await mirror.ask(f"/api/v1/{path}")).status == 401
        assert (await mirror.ask("/settings")).status == 401


def _loaded(file: Path) -> Config:
    file.write_text("[tags]\nfresh = 5\n[admin]\nlisten = ['127.0.0.1:0']\n")
    env = {"HOME": str(file.parent), "REGISTRY_MIRROR_LOG_LEVEL": "debug"}
    return load(file, env, {"cache_dir": str(file.parent / "cache")}).config


async def test_settings_say_where_values_come_from(tmp_path: Path) -> None:
    """A line of a file, a variable, a flag, or the default."""
    file = tmp_path / "mirror.toml"
    config = await asyncio.to_thread(_loaded, file)
    async with paged(config) as mirror:
        origins = {each["key"]: each["origin"] for each in await mirror.api("settings")}
        assert origins["tags.fresh"] == f"file {file}:2"
        assert origins["log.level"] == "environment REGISTRY_MIRROR_LOG_LEVEL"
        assert (origins["cache.dir"], origins["fill.attempts"]) == ("--cache-dir", "default")
        assert f"{file}:2".encode() in (await mirror.ask("/settings")).body


@pytest.fixture
def lines(own_logging: None) -> None:
    """A log as that of a server, with JSON that nobody reads."""
    configure(LogSettings(), io.StringIO())


@pytest.mark.usefixtures("lines")
async def test_log_is_for_administrators(tmp_path: Path) -> None:
    """Neither a visitor at this machine nor one with a token for something else reads it."""
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror:
        log.warning("a striking event", secret="hunter2", markup="<b>")
        assert (await mirror.ask("/api/v1/log")).status == 401
        assert (await mirror.ask("/api/v1/log", await token(mirror, "puller", Action.PULL))).status == 403
        admin = await token(mirror, "me", Action.ADMIN)
        (line,) = await mirror.api("log?text=striking&level=warning", admin)
        assert (line["component"], line["fields"]) == ("tests.settings", {"secret": "***", "markup": "<b>"})
        assert await mirror.api("log?text=striking&level=error", admin) == []
        assert (await mirror.ask("/api/v1/log?level=loud", admin)).status == 422
        page = (await mirror.ask("/settings?text=striking&level=nonsense", admin)).body
        assert b"a striking event" in page
        assert b"markup=&lt;b&gt;" in page
        assert b"a striking event" not in (await mirror.ask("/settings")).body


@pytest.mark.usefixtures("lines")
async def test_log_of_all_workers(tmp_path: Path) -> None:
    """Whichever worker is asked, lines of the others are there; a filter is kept by each."""
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    async with paged(config, (tmp_path, 0)) as mirror, paged(config, (tmp_path, 1)):
        log.warning("seen by both")
        admin = await token(mirror, "me", Action.ADMIN)
        found = await mirror.api("log?text=seen+by+both", admin)
        assert sorted(each["worker"] for each in found) == [0, 1]
