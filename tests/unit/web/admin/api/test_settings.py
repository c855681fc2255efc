"""Operations about settings: no secret is shown, and the rules are tried."""

import json
from pathlib import Path

from tests.paged import paged
from tests.running import configured

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
