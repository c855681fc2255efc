"""The client of the API: where it asks, what it shows whom, and answers of anything else."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from mirror.cli.remote import admin_client
from mirror.cli.remote.admin_client import (
    AdminClient,
    NoAnswer,
    PagesPlace,
    Refused,
    configured_place,
    token_of,
)
from tests.fakes.tls import Authority
from tests.running import configured

SECRET = "rmt_" + "s" * 40


@asynccontextmanager
async def answering(
    answer: bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer every request with the same bytes; return the port, and the heads that came."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


def response(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    return head.encode() + body


def ask(place: PagesPlace, token: str | None = SECRET) -> object:
    with closing(AdminClient(place, token)) as client:
        return client.get("about")


def place(port: int) -> PagesPlace:
    return PagesPlace(f"http://127.0.0.1:{port}")


async def test_admin_client_shows_its_token_to_the_api() -> None:
    async with answering(response(b'{"a": 1}')) as (port, heads):
        assert await asyncio.to_thread(ask, place(port)) == {"a": 1}
    assert heads[0].startswith(b"GET /api/v1/about HTTP/1.1\r\n")
    assert f"Authorization: Bearer {SECRET}".encode() in heads[0]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (response(b'{"error":"no","to_do":"show a token"}', "401 X"), Refused, "no: show a token"),
        (response(b"{}", "403 Forbidden"), Refused, "refuses this: 403"),
        (response(b"", "302 Found", "Location: http://127.0.0.1:9/\r\n"), NoAnswer, "answered 302"),
        (response(b"<html>"), NoAnswer, "no API of a registry-mirror"),
        (response(b"[" * 100_000), NoAnswer, "no API of a registry-mirror"),
        (response(b"[" + b"1," * 400_000 + b"1]"), NoAnswer, "no API of a registry-mirror"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", NoAnswer, "does not answer"),
        (b"", NoAnswer, "does not answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", NoAnswer, "does not answer"),
    ],
    ids=["401", "403", "redirect", "html", "depth", "values", "ssh", "nothing", "headers"],
)
async def test_admin_client_and_other_answers(answer: bytes, error: type[NoAnswer], words: str) -> None:
    """Each is an error with a reason; the token is in none, and no redirect is followed."""
    async with answering(answer) as (port, heads):
        with pytest.raises(error, match=words) as caught:
            await asyncio.to_thread(ask, place(port))
    assert SECRET not in str(caught.value)
    assert len(heads) == 1


async def test_admin_client_bounds_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_client, "LONGEST", 1000)
    async with answering(response(b"[" + b" " * 5000 + b"]")) as (port, _):
        with pytest.raises(NoAnswer, match="longer than 1000 bytes"):
            await asyncio.to_thread(ask, place(port))


@pytest.mark.parametrize(
    "url",
    [
        *("", "mirror.lan:5002", "ftp://x", "http://", "http://x:99999", "http://a:b@x"),
        *("http://[::1", "http://a b", "http://a..b:5002", f"http://{'x' * 70}", "http://x\x7f"),
    ],
)
def test_admin_client_refuses_what_is_no_url(url: str) -> None:
    with pytest.raises(NoAnswer, match="--server must be a URL"):
        AdminClient(PagesPlace(url))


async def test_admin_client_shows_its_token_to_the_right_certificate_alone(tmp_path: Path) -> None:
    """Another certificate than that of the configuration gets no request; an unknown issuer neither."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    context, right, wrong = authority.server_context(), authority.server_file, authority.ca_file
    async with answering(response(b"{}"), context) as (port, heads):
        url = f"https://127.0.0.1:{port}"
        assert await asyncio.to_thread(ask, PagesPlace(url, right)) == {}
        heads.clear()
        for each in (PagesPlace(url, wrong), PagesPlace(url)):
            with pytest.raises(NoAnswer, match="certificate"):
                await asyncio.to_thread(ask, each)
        assert heads == []


@pytest.mark.parametrize(
    ("sections", "found"),
    [
        ({"admin": {"listen": ["5002"]}}, PagesPlace("http://127.0.0.1:5002")),
        ({"admin": {"listen": ["0.0.0.0:5002"]}}, PagesPlace("http://127.0.0.1:5002")),
        ({"admin": {"listen": ["10.0.0.6:5002", "5002"]}}, PagesPlace("http://10.0.0.6:5002")),
    ],
)
def test_admin_client_finds_the_pages_of_a_configuration(
    tmp_path: Path, sections: dict[str, object], found: PagesPlace
) -> None:
    assert configured_place(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"}, **sections)) == found


def test_admin_client_without_pages_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match=r"under \[admin\]"):
        configured_place(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"}))


def test_admin_client_token_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    """The file comes first; what can be no token is refused without being shown."""
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    env = {"REGISTRY_MIRROR_TOKEN": "rmt_env"}
    assert token_of(file, env) == SECRET
    assert token_of(None, env) == "rmt_env"
    assert token_of(None, {}) is None
    with pytest.raises(NoAnswer, match="cannot be read: No such file"):
        token_of(tmp_path / "none", env)
    for wrong in ("a\r\nX: y", "é", "x" * 5000):
        file.write_text(wrong)
        with pytest.raises(NoAnswer, match="has no token") as caught:
            token_of(file, env)
        assert wrong not in str(caught.value)
