"""Secrets of pushes, copies, replication and webhooks: none is in what the mirror writes or tells others."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mirror.bundle.plan import make_plan
from mirror.hosted.replication.replicator import SETTLING
from mirror.service.service import HOUSEKEEPING_SECONDS
from tests.contract.test_canaries import COMMAND, canary, forms
from tests.fakes.bundles import Shelf
from tests.fakes.pusher import Pusher
from tests.fakes.site import Seen, Site
from tests.programs import without_coverage
from tests.wire import get

SECRETS = {name: forms(canary(name)) for name in ("target", "webhook", "docker", "pusher", "header")}


def found_in(text: str) -> list[str]:
    return [name for name, texts in SECRETS.items() if any(each in text for each in texts)]


class Target:
    """A registry that wants a password, refuses every push, and echoes the password in its words."""

    def __init__(self, secret: str) -> None:
        self.sent = f"me:{canary(secret)}"
        self.echo = canary(secret)
        self.asked = asyncio.Event()

    async def __call__(self, request: web.BaseRequest, _: Seen) -> web.StreamResponse:
        await request.read()
        encoded = base64.b64encode(self.sent.encode()).decode()
        if request.headers.get("Authorization") != f"Basic {encoded}":
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="target"'})
        if request.method == "HEAD":
            return web.Response(status=404)
        self.asked.set()
        words = f"no: {self.echo} {encoded} Basic {encoded}"
        return web.json_response({"errors": [{"code": "DENIED", "message": words}]}, status=403)


async def hook(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Refuse a notification, and echo all that came with it."""
    body = await request.text()
    return web.Response(status=500, text=f"{dict(seen.headers)} {body}")


@asynccontextmanager
async def serving(folder: Path, target: str, hooks: str) -> AsyncIterator[str]:
    """Run `serve` with a hosted registry whose pushes go on to others; its log is in a file."""
    secret = canary("webhook")
    await asyncio.to_thread((folder / "webhook.secret").write_text, secret)
    text = "\n".join(
        [
            "[server]\nlisten = ['127.0.0.1:0']",
            f"[cache]\ndir = '{folder}/cache'\nmin_free = 0",
            "[log]\nlevel = 'debug'",
            "[[hosted]]\nname = 'office'",
            f"[[hosted.webhooks]]\nurl = '{hooks}/hook'\nsecret_file = '{folder}/webhook.secret'",
            f"[[hosted.mirror_to]]\nurl = '{target}'\nusername = 'me'\npassword = '{canary('target')}'",
            "[[rule]]\nname = 'all'\neffect = 'allow'\nnetworks = ['127.0.0.1']\n"
            "repositories = ['office/*']\nactions = ['pull', 'list', 'push', 'delete']",
        ]
    )
    await asyncio.to_thread((folder / "mirror.toml").write_text, text)
    log = await asyncio.to_thread((folder / "log").open, "w")
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "serve", "--config", str(folder / "mirror.toml"), stderr=log, env=without_coverage()
    )
    try:
        while "serves on " not in (written := await asyncio.to_thread((folder / "log").read_text)):
            assert process.returncode is None, written
            await asyncio.sleep(0.05)
        yield written.partition("serves on ")[2].partition(",")[0]
    finally:
        process.terminate()
        await process.wait()
        log.close()


def files(folder: Path) -> dict[str, str]:
    """All files that the mirror wrote."""
    found = [*(folder / "cache").rglob("*"), folder / "log"]
    return {str(path): path.read_bytes().decode("latin-1") for path in found if path.is_file()}


@pytest.mark.slow
async def test_secrets_of_pushes_are_in_nothing_that_is_written_or_sent(tmp_path: Path) -> None:
    shown: dict[str, str] = {}
    shelf = Shelf()
    bundle = tmp_path / "lab.tar"
    data = shelf.written(make_plan(shelf.contents({"quay.io/org/app:1": shelf.image([b"layer"])})))
    await asyncio.to_thread(bundle.write_bytes, data)
    target, docker = Target("target"), Target("docker")
    async with Site(target) as first, Site(docker) as second, Site(hook) as hooks:
        login = base64.b64encode(f"me:{canary('docker')}".encode()).decode()
        place = second.url.removeprefix("http://")
        auths = tmp_path / "auth.json"
        await asyncio.to_thread(auths.write_text, json.dumps({"auths": {place: {"auth": login}}}))

        async def command(name: str, *arguments: str, **env: str) -> None:
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                *arguments,
                "--config",
                str(tmp_path / "mirror.toml"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**without_coverage(), **env},
            )
            shown[name] = (await process.communicate())[0].decode()

        async with serving(tmp_path, first.url, hooks.url) as address:
            sent = [f"Authorization: Bearer {canary('pusher')}", f"Cookie: {canary('header')}"]
            async with await Pusher.open(address) as pusher:
                pusher.headers = sent
                begun = await pusher.begin()
                shown["an answer to a push"] = f"{begun.raw_headers} {begun.body.decode()}"
                pusher.headers = []
                await pusher.image("1", b"layer")
            await command("copy refused", "copy", str(bundle), f"{place}/org/app:1", "--authfile", str(auths))
            await command("copy", "copy", str(bundle), "office/")
            async with asyncio.timeout(10 * HOUSEKEEPING_SECONDS + SETTLING):
                await target.asked.wait()
            waiting: Any = {}
            while "answered 403" not in str(waiting):
                await command("status", "hosted", "status", "--json")
                waiting = json.loads(shown["status"])
            await command("settings", "config", "show")
            for path in ("/metrics", "/readyz"):
                shown[path] = (await get(address, path)).body.decode()
        shown["notifications"] = "\n".join(str(dict(each.headers)) for each in hooks.log)
        assert hooks.log
    assert "answered 403" in shown["copy refused"]
    shown |= await asyncio.to_thread(files, tmp_path)
    assert {where: found for where, text in shown.items() if (found := found_in(text))} == {}
