"""/setup/: the mirror's description, and scripts with the address that the client used."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

import pytest

from mirror.setup.scripts import NAMES
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.running import Running, configured, serving
from tests.wire import Wire, get, head

HOSTILE = [
    "$(touch /tmp/x)",
    "`id`",
    "a';id;'",
    'a"b',
    "m.lan:5000;id",
    "m.lan:5000 x",
    "a\\b",
    "a@b",
    "a|b",
    "a&b",
    "-x$IFS",
    "x" * 300,
    "ghcr.io",
    "registry-1.docker.io:443",
    "@UPSTREAMS@",
    "a_b!c",
    "",
]


async def script(mirror: Running, name: str, host: str) -> str:
    reply = await get(mirror.address, f"/setup/{name}.sh", f"Host: {host}")
    assert (reply.status, reply.header("content-type")) == (200, "text/plain; charset=utf-8")
    return reply.body.decode()


async def test_description_has_names_of_upstreams_only(mirror: Running) -> None:
    """Neither URLs nor accounts of the upstreams are told."""
    reply = await get(mirror.address, "/setup/mirror.json")
    found = json.loads(reply.body)
    assert [each["name"] for each in found["upstreams"]] == ["docker.io", "quay.io"]
    assert set(found) == {"registry-mirror", "upstreams"}
    assert all(set(each) == {"name", "aliases"} for each in found["upstreams"])
    assert b"127.0.0.1" not in reply.body


@pytest.mark.parametrize("name", NAMES)
async def test_script_is_for_the_address_that_the_client_used(mirror: Running, name: str) -> None:
    """Scheme, address and upstreams are filled in; a shell can read the script."""
    text = await script(mirror, name, "mirror.lan:5000")
    assert "ADDRESS='mirror.lan:5000'" in text
    assert "SCHEME='http'" in text
    assert "UPSTREAMS='docker.io quay.io'" in text
    assert not re.search(r"@[A-Z]+@", text)
    checked = await asyncio.to_thread(
        subprocess.run, ["sh", "-n"], input=text, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("host", HOSTILE)
@pytest.mark.parametrize("name", NAMES)
async def test_script_has_no_host_that_is_none(mirror: Running, name: str, host: str) -> None:
    """A Host header that could be anything else than the mirror's address leaves no trace in a script."""
    text = await script(mirror, name, host)
    assert f"ADDRESS='{mirror.address}'" in text
    assert text == await script(mirror, name, mirror.address)


@pytest.mark.parametrize(
    ("host", "address"),
    [("mirror.lan", "mirror.lan:80"), ("[2001:DB8::1]:5000", "[2001:db8::1]:5000"), ("M.LAN:1", "m.lan:1")],
)
async def test_script_has_one_spelling_of_the_address(mirror: Running, host: str, address: str) -> None:
    """A port is always there: configurations of clients need it."""
    assert f"ADDRESS='{address}'" in await script(mirror, "docker", host)


async def test_script_over_tls_says_https(hub: FakeRegistry, tmp_path: Path) -> None:
    """The scheme is that of the connection."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    server = {"tls_certificate": authority.server_file, "tls_key": authority.server_file}
    async with serving(configured(tmp_path / "cache", {"docker.io": hub.url}, server=server)) as mirror:
        context = await asyncio.to_thread(authority.client_context)
        async with await Wire.open(mirror.address, context) as wire:
            wire.send("GET", "/setup/docker.sh")
            text = (await wire.reply()).body.decode()
    assert "SCHEME='https'" in text
    assert "ADDRESS='mirror.test:443'" in text


@pytest.mark.parametrize(
    "path", ["/setup/", "/setup/x.sh", "/setup/docker.sh/", "/setup/../setup/docker.sh", "/setup/common.sh"]
)
async def test_setup_has_no_other_files(mirror: Running, path: str) -> None:
    """Any other path takes its usual way, and is not found."""
    assert (await get(mirror.address, path)).status == 404


async def test_setup_is_harmless(mirror: Running) -> None:
    """Neither cached nor sniffed; HEAD has no body, and nothing is asked of an upstream."""
    reply = await head(mirror.address, "/setup/docker.sh")
    assert reply.status == 200
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("cache-control") == "no-store"
    async with await Wire.open(mirror.address) as wire:
        wire.send("POST", "/setup/docker.sh", ["Content-Length: 0"])
        assert (await wire.reply()).status == 405
