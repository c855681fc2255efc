"""Secrets of every kind, planted in a running mirror: none is in what it writes, shows or sends elsewhere.

One canary for each place that has a secret. What the mirror writes and says is searched for all of them,
plain and as they are sent: log at level debug, metrics, /readyz, answers to clients, cache folder, reports of
commands, command lines and environments of children, and what other hosts get.
"""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import bcrypt
import pytest
from aiohttp import web

from tests.fakes.access import BasicAuth, TokenAuth, basic_login
from tests.fakes.faults import Fault, oci_error
from tests.fakes.programs import FakeProgram
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.programs import without_coverage
from tests.wire import get

COMMAND = [sys.executable, "-m", "mirror"]


def canary(name: str) -> str:
    """Return a secret that is nowhere else."""
    return f"canary-{name}-7f3a"


# Place of the secret -> name of the upstream that has it.
PLACES = {
    "password": "p.test",
    "file": "f.test",
    "environment": "e.test",
    "auths": "a.test",
    "identity": "i.test",
    "helper": "h.test",
    "command": "c.test",
    "source": "s.test",
}
OTHERS = ("client", "own", "user", "wrong", "proxy", "aws", "signed", "stderr")


def forms(secret: str) -> set[str]:
    """Return the texts by which a secret would be recognised."""
    inside = {
        base64.b64encode(f"{prefix}{secret}".encode())[4 * -(-len(prefix) // 3) : -4].decode()
        for prefix in ("me:", "xme:", "xxme:", "alice:")
    }
    return {secret, quote(secret, safe=""), *inside}


CANARIES: dict[str, set[str]] = {name: forms(canary(name)) for name in (*PLACES, *OTHERS)}


def canaries_in(text: str) -> list[str]:
    """Return the names of the canaries in a text."""
    return [name for name, texts in CANARIES.items() if any(each in text for each in texts)]


# What a client sends besides: its own credentials.
CLIENT = [f"Authorization: Bearer {canary('client')}", f"Cookie: {canary('client')}"]


@dataclass
class Mirror:
    """A mirror in a process of its own, in front of a registry for each place."""

    folder: Path
    registries: dict[str, FakeRegistry]
    proxy: str
    address: str = ""
    process: "asyncio.subprocess.Process | None" = None

    @property
    def arguments(self) -> list[str]:
        return ["--config", str(self.folder / "mirror.toml")]

    def environment(self) -> dict[str, str]:
        proxy = self.proxy.replace("//", f"//me:{canary('proxy')}@")
        return {
            **without_coverage(),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "REGISTRY_MIRROR_LOGIN_E_TEST": f"me:{canary('environment')}",
            # The preconfigured upstreams are asked by doctor, through this proxy.
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), proxy),
            "NO_PROXY": "127.0.0.1",
            "AWS_SECRET_ACCESS_KEY": canary("aws"),
        }


def planted(folder: Path, registries: dict[str, FakeRegistry]) -> None:
    """Write the configuration with a secret in each place, and the programs that print secrets."""
    host = {name: fake.url.removeprefix("http://") for name, fake in registries.items()}
    helper = FakeProgram(folder / "bin", "docker-credential-canary")
    helper.knows({host["h.test"]: ("me", canary("helper"))})
    command = FakeProgram(folder / "bin", "print-password")
    command.does(f"echo '{canary('stderr')}' >&2; cat '{folder}/bin/printed'")
    (folder / "bin/printed").write_text(canary("command"))
    (folder / "password").write_text(canary("file"))
    (folder / "users").write_text(
        f"alice:{bcrypt.hashpw(canary('user').encode(), bcrypt.gensalt(4)).decode()}\n"
    )
    login = base64.b64encode(f"me:{canary('auths')}".encode()).decode()
    auths = {host["a.test"]: {"auth": login}, host["i.test"]: {"identitytoken": canary("identity")}}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    extra = {
        "p.test": f"username = 'me'\npassword = '{canary('password')}'",
        "f.test": f"username = 'me'\npassword_file = '{folder}/password'",
        "h.test": "credential_helper = 'canary'",
        "c.test": "username = 'me'\npassword_command = ['print-password']",
        "own.test": "private = 'as-upstream'",
        "s.test": f"username = 'me'\npassword = '{canary('source')}'\n"
        f"[[upstream.sources]]\nurl = '{registries['s.test'].url}'\n"
        f"username = 'me'\npassword = '{canary('source')}'",
    }
    tables = [
        f"[[upstream]]\nname = '{name}'\nurl = '{fake.url}'\nattempts = 1\n{extra.get(name, '')}"
        for name, fake in registries.items()
    ]
    text = "\n".join(
        [
            "[server]\nlisten = ['127.0.0.1:0']",
            f"[cache]\ndir = '{folder}/cache'\nmin_free = 0",
            "[log]\nlevel = 'debug'",
            "[fill]\nprefetch = 'off'",
            f"[access]\nhtpasswd = '{folder}/users'\nlogin_hosts = ['login.test']",
            f"[audit]\nfile = '{folder}/audit.log'\npulls = true",
            f"[credentials]\ndocker_config = '{folder}/config.json'",
            "[[rule]]\nname = 'this machine'\neffect = 'allow'\nnetworks = ['127.0.0.0/8']\n"
            "repositories = ['[!o]*']",  # what own.test has needs the client's own credentials
            *tables,
            "[[upstream]]\nname = 'proxied.test'\nurl = 'http://proxied.test'\nattempts = 1",
        ]
    )
    (folder / "mirror.toml").write_text(text)


@asynccontextmanager
async def running(folder: Path, registries: dict[str, FakeRegistry], proxy: str) -> AsyncIterator[Mirror]:
    """Run `serve` with its log in a file."""
    await asyncio.to_thread(planted, folder, registries)
    mirror = Mirror(folder, registries, proxy)
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "serve", *mirror.arguments, stderr=write, env=mirror.environment()
    )
    os.close(write)
    log = await asyncio.to_thread(os.fdopen, read)
    collected: list[str] = []
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[str] = loop.create_future()

    def collect() -> None:
        with log:
            for line in log:
                collected.append(line)
                if (address := re.search(r"serves on (\S+),", line)) is not None:
                    loop.call_soon_threadsafe(ready.set_result, address[1])

    reader = asyncio.create_task(asyncio.to_thread(collect))
    try:
        mirror.address = await asyncio.wait_for(ready, 60)
        mirror.process = process
        yield mirror
    finally:
        process.terminate()
        await process.wait()
        await reader
        await asyncio.to_thread((folder / "log").write_text, "".join(collected))


@asynccontextmanager
async def guarded_registries() -> AsyncIterator[dict[str, FakeRegistry]]:
    """One registry for each place: half of them want tokens, the others Basic; blobs are elsewhere."""
    async with (
        FakeRegistry() as p,
        FakeRegistry() as f,
        FakeRegistry() as e,
        FakeRegistry() as a,
        FakeRegistry() as i,
        FakeRegistry() as h,
        FakeRegistry() as c,
        FakeRegistry() as s,
        FakeRegistry() as own,
    ):
        places = {**PLACES, "own": "own.test"}
        fakes = dict(zip(places.values(), (p, f, e, a, i, h, c, s, own), strict=True))
        for number, (place, name) in enumerate(places.items()):
            fake = fakes[name]
            image = fake.add_image("org/x", "t", [f"layer of {name}".encode()])
            fake.cdn = True
            if place == "password":
                fake.location = f"{fake.cdn_url}/org+x/{image.layers[0]}?sig={canary('signed')}"
            tokens = TokenAuth(user="me", password=canary(place), private={"org/x"})
            tokens.identity_tokens[canary(place)] = "me"
            fake.auth = (
                tokens if number % 2 or place in ("identity", "auths") else BasicAuth("me", canary(place))
            )
        yield fakes


@pytest.mark.slow
async def test_canaries_are_in_nothing_that_is_written_or_sent(tmp_path: Path) -> None:
    """Pulls that work, pulls that fail with echoes, all reports; then everything is searched."""
    shown: dict[str, str] = {}
    proxy = Site(echoing_proxy)
    async with proxy, guarded_registries() as fakes, running(tmp_path, fakes, proxy.url) as mirror:
        shown["answers to logins"] = await log_in(mirror)
        shown["answers by a secret path"] = await use_token(mirror)
        own = basic("me", canary("own"))
        assert (await get(mirror.address, "/v2/own.test/org/x/manifests/t", own)).status == 200
        sent = [basic_login(each.headers.get("Authorization")) for each in fakes["own.test"].log]
        assert ("me", canary("own")) in sent
        for place, name in PLACES.items():
            await pull(mirror, name)
            shown[f"answers of {name}"] = await fail_with_echoes(mirror, name, canary(place))
            others = [f"{seen.path} {dict(seen.headers)}" for seen in fakes[name].cdn_log]
            assert others
            shown[f"the store of {name}"] = "\n".join(others)
        reply = await get(mirror.address, "/v2/proxied.test/org/x/manifests/t", *CLIENT)
        shown["an answer by proxy"] = f"{reply.raw_headers} {reply.body.decode()}"
        assert any(
            canary("proxy") in str(basic_login(each.headers.get("Proxy-Authorization"))) for each in proxy.log
        )
        for path in ("/metrics", "/readyz", "/", "/v2/_catalog"):
            shown[path] = (await get(mirror.address, path)).body.decode()
        shown |= await asyncio.to_thread(reports, mirror)
        shown |= await asyncio.to_thread(processes, mirror)
    shown |= await asyncio.to_thread(files, tmp_path)
    assert '"level": "debug"' in shown["log"]
    assert {where: found for where, text in shown.items() if (found := canaries_in(text))} == {}


async def pull(mirror: Mirror, name: str) -> None:
    """Pull a manifest and a blob, which the account of this upstream alone can read."""
    manifest = await get(mirror.address, f"/v2/{name}/org/x/manifests/t", *CLIENT)
    assert manifest.status == 200, (name, manifest.body)
    layer = json.loads(manifest.body)["layers"][0]["digest"]
    blob = await get(mirror.address, f"/v2/{name}/org/x/blobs/{layer}", *CLIENT)
    assert blob.body == f"layer of {name}".encode()


async def fail_with_echoes(mirror: Mirror, name: str, secret: str) -> str:
    """Return the answers to requests at which the registry echoes its password, plain and as it was sent."""
    sent = base64.b64encode(f"me:{secret}".encode()).decode() if name != PLACES["identity"] else ""
    echo = oci_error(
        "DENIED", f"no: {secret} {sent} Basic {sent} https://me:{secret}@x.test/?sig={canary('signed')}"
    )
    image, fake, said = f"/v2/{name}/org/x", mirror.registries[name], list[str]()
    for status in (401, 403, 404, 500):
        fake.fault(Fault(status=status, body=echo), times=20)
        for path in (f"manifests/t{status}", "tags/list", f"blobs/sha256:{status:064}", "referrers/sha256:0"):
            reply = await get(mirror.address, f"{image}/{path}", *CLIENT)
            said.append(f"{reply.raw_headers} {reply.body.decode(errors='replace')}")
        fake.forgive()
    return "\n".join(said)


async def log_in(mirror: Mirror) -> str:
    """Log in at this mirror, wrongly and rightly; return the answers. The token is one more canary."""
    image, host = "/v2/p.test/org/x/manifests/t", "Host: login.test"
    wrong, right = (basic("alice", canary(name)) for name in ("wrong", "user"))
    replies = [await get(mirror.address, path, host, wrong) for path in ("/v2/", image, "/token")]
    assert [each.status for each in replies] == [401, 401, 401]
    answer = json.loads((await get(mirror.address, "/token?service=login.test&scope=x", host, right)).body)
    CANARIES["token"] = {answer["token"], answer["token"].rpartition(".")[2]}
    replies += [await get(mirror.address, image, host, f"Authorization: Bearer {answer['token']}")]
    replies += [await get(mirror.address, image, host, right)]
    assert [each.status for each in replies[3:]] == [200, 200], replies[3].body
    return "\n".join(f"{each.raw_headers} {each.body.decode(errors='replace')}" for each in replies)


async def use_token(mirror: Mirror) -> str:
    """Make a token of this mirror, and pull by its path and by a wrong one; return the answers."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "token",
        "create",
        "ci",
        *mirror.arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=mirror.environment(),
    )
    secret = (await process.communicate())[0].decode().strip()
    assert secret
    CANARIES["secret path"] = {secret}
    image = "v2/p.test/org/x/manifests/t"
    paths = (f"/t/{each}/{image}" for each in (secret, secret[:-4] + canary("wrong")))
    replies = [await get(mirror.address, path) for path in paths]
    assert replies[0].status == 200, replies[0].body
    assert replies[1].status != 200
    return "\n".join(f"{each.raw_headers} {each.body.decode(errors='replace')}" for each in replies)


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


async def echoing_proxy(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Refuse a request, with the password in the page."""
    login = request.headers.get("Proxy-Authorization", "")
    return web.Response(status=502, text=f"no: {login} {basic_login(login)}")


def reports(mirror: Mirror) -> dict[str, str]:
    """Return what the commands say about this configuration."""
    said = {}
    for command in ("config show", "config show --json", "config check", "doctor"):
        done = subprocess.run(
            [*COMMAND, *command.split(), *mirror.arguments],
            env=mirror.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        said[command] = done.stdout + done.stderr
    assert "h.test: account me, from docker-credential-canary" in said["config check"]
    return said


def processes(mirror: Mirror) -> dict[str, str]:
    """Return the command line of the mirror, and those of its programs with their environments."""
    assert mirror.process is not None
    seen = {each.name: each.read_text() for each in (mirror.folder / "bin").glob("*.calls")}
    assert len(seen) == 2
    assert all(seen.values())
    return {**seen, "command line": Path(f"/proc/{mirror.process.pid}/cmdline").read_text()}


def files(folder: Path) -> dict[str, str]:
    """Return the log, and the content of all files of the cache."""
    cached = [each for each in (folder / "cache").rglob("*") if each.is_file()]
    assert cached
    texts = {str(each): each.read_bytes().decode("latin-1") for each in cached}
    own = {name: (folder / name).read_text() for name in ("log", "audit.log")}
    assert all(own.values())
    return {**texts, **own}
