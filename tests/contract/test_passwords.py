"""Passwords that an upstream refuses, as clients and operators of a running mirror learn of them."""

import json
from pathlib import Path

import pytest

from tests.fakes.access import BasicAuth, TokenAuth
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving
from tests.wire import get

TAG = "/v2/docker.io/library/x/manifests/t"
ACCOUNT = {"username": "me", "password": "geheim", "private": "everybody"}


@pytest.mark.parametrize("auth", [BasicAuth("me", "other"), TokenAuth(user="me", password="other")])
async def test_refused_password_is_named_to_clients_and_operators(
    fake: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], auth: BasicAuth | TokenAuth
) -> None:
    """The answer says what to check, /readyz and /metrics tell, the log warns once; none has the password."""
    fake.add_image("library/x", "t", [b"a"])
    fake.auth = auth
    config = configured(tmp_path, {"docker.io": fake.url}, upstream=ACCOUNT)
    async with serving(config) as mirror:
        replies = [await get(mirror.address, TAG) for _ in range(3)]
        ready, metrics = await get(mirror.address, "/readyz"), await get(mirror.address, "/metrics")
    (error,) = json.loads(replies[0].body)["errors"]
    assert replies[0].status == 404
    assert "127.0.0.1 refused the password of user me: check username and password_file" in error["message"]
    (source,) = json.loads(ready.body)["upstreams"]["docker.io"]["sources"]
    assert [(each["account"], each["refused"]) for each in source["accounts"]] == [("me", True)]
    gauge = b'registry_mirror_account_refused{account="me",upstream="docker.io"} 1.0'
    assert gauge in metrics.body
    log = capsys.readouterr().out
    assert log.count("password refused, check username and password_file") == 1
    shown = [log.encode(), ready.body, metrics.body, *(reply.body for reply in replies)]
    assert not any(b"geheim" in text for text in shown)
