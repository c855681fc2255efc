"""Client certificates: who is let in, who is refused by TLS, and what operator and client are told."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from structlog.testing import capture_logs

from mirror.web.accept import acceptor
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.running import Running, configured, serving
from tests.wire import Reply, Wire, request_head

Lines = list[MutableMapping[str, Any]]

HOUR = timedelta(hours=1)


@dataclass
class Clients:
    """Authorities, and contexts of clients by their names; "nobody" shows no certificate."""

    authority: Authority
    contexts: dict[str, ssl.SSLContext]
    revoked: Path
    outdated: Path  # a revocation list that has expired

    def server(self, **options: Any) -> dict[str, Any]:
        """The section [server] of a mirror that asks for certificates."""
        file = self.authority.server_file
        return {
            "tls_certificate": file,
            "tls_key": file,
            "client_ca": self.authority.ca_file,
            "client_crl": self.revoked,
            **options,
        }


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    folder = tmp_path_factory.mktemp("authority")
    authority = Authority(folder)
    (folder / "other").mkdir()
    stranger = Authority(folder / "other")
    twice = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in ("alice", "root")])
    pairs = {
        "alice": authority.issue(folder, "alice"),
        "bob": authority.issue(folder, "bob"),
        "expired": authority.issue(folder, "expired", begins=-2 * HOUR, lifetime=-HOUR),
        "not yet": authority.issue(folder, "not yet", begins=HOUR),
        "server": authority.issue(folder, "server", usage=[ExtendedKeyUsageOID.SERVER_AUTH]),
        "client": authority.issue(folder, "client", usage=[ExtendedKeyUsageOID.CLIENT_AUTH]),
        "revoked": authority.issue(folder, "revoked"),
        "stranger": stranger.issue(folder / "other", "alice"),
        "ci": authority.issue(folder, "machine 7", alternatives=[x509.DNSName("ci.lan")]),
        "two names": authority.issue(folder, "two names", subject=twice),
    }
    authority.revoke(folder / "crl.pem", pairs["revoked"][0])
    contexts = {name: authority.client_context() for name in [*pairs, "nobody"]}
    for name, pair in pairs.items():
        contexts[name].load_cert_chain(*pair)
    authority.revoke(folder / "old.pem", pairs["revoked"][0], lifetime=-HOUR)
    return Clients(authority, contexts, folder / "crl.pem", folder / "old.pem")


@asynccontextmanager
async def asking(
    clients: Clients,
    folder: Path,
    rules: Sequence[dict[str, Any]] = (),
    access: str = "allow",
    **options: Any,
) -> AsyncIterator[tuple[Running, FakeRegistry]]:
    """Run a mirror that asks for certificates."""
    async with FakeRegistry() as hub:
        hub.add_image("team/app", "1", [b"layer"])
        sections: Any = {"server": clients.server(**options), "access": {"default": access}}
        config = configured(folder / "cache", {"hub.test": hub.url}, rules=list(rules), **sections)
        async with serving(config) as mirror:
            yield mirror, hub


async def ask(mirror: Running, context: ssl.SSLContext, path: str = "/v2/", times: int = 1) -> list[Reply]:
    """Send the same request on one connection."""
    replies = []
    async with await Wire.open(mirror.address, context) as wire:
        for _ in range(times):
            wire.send("GET", path)
            replies.append(await wire.reply())
    return replies


async def refused(mirror: Running, context: ssl.SSLContext, lines: Lines) -> str:
    """Connect, and return what the client is told; wait for the line in the log, which must be one."""
    before = len(lines)
    told = "nothing"
    try:
        async with await Wire.open(mirror.address, context) as wire:
            assert await wire.reader.read() == b""
    except ssl.SSLError as error:
        told = str(error.reason)
    except ConnectionError:
        told = "reset"
    while not any(  # noqa: ASYNC110  # a log gives no event
        line["event"] == "client certificate refused" for line in lines[before:]
    ):
        await asyncio.sleep(0.001)
    return told


@pytest.mark.parametrize(
    ("client", "reason", "alert"),
    [
        ("expired", "it has expired", "EXPIRED"),
        ("not yet", "it is not valid yet", "BAD_CERTIFICATE"),
        ("stranger", "no authority in server.client_ca has signed it", "UNKNOWN_CA"),
        ("server", "it is not for clients (extended key usage)", "UNSUPPORTED"),
        ("revoked", "it is revoked", "REVOKED"),
    ],
)
async def test_wrong_client_certificate_is_refused_by_tls(
    clients: Clients, tmp_path: Path, client: str, reason: str, alert: str
) -> None:
    """A certificate is optional here. The client gets the alert, the operator address and reason."""
    async with asking(clients, tmp_path) as (mirror, hub):
        with capture_logs() as lines:
            told = await refused(mirror, clients.contexts[client], lines)
            assert alert in told
        assert [(each["client"], each["reason"]) for each in lines] == [("127.0.0.1", reason)]
        assert await mirror.metric('registry_mirror_refused_connections_total{reason="certificate"}') == 1
        assert hub.log == []
        assert (await ask(mirror, clients.contexts["alice"]))[0].status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_required_client_certificate(clients: Clients, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """No connection and no /healthz without one; both with one of the authority."""
    nobody = clients.authority.client_context()
    nobody.maximum_version = version
    async with asking(clients, tmp_path, client_certificates="required") as (mirror, _):
        with capture_logs() as lines:
            assert "ALERT" in await refused(mirror, nobody, lines)
        assert "none was shown" in lines[0]["reason"]
        for name in ("alice", "client"):
            assert (await ask(mirror, clients.contexts[name], "/healthz"))[0].status == 200


async def test_optional_client_certificate(clients: Clients, tmp_path: Path) -> None:
    """A client without one is served as long as the rules allow it."""
    async with asking(clients, tmp_path) as (mirror, _):
        assert (await ask(mirror, clients.contexts["nobody"]))[0].status == 200


async def test_certificate_with_two_common_names_is_refused(clients: Clients, tmp_path: Path) -> None:
    """TLS takes such a certificate, which says nothing certain."""
    async with asking(clients, tmp_path) as (mirror, _):
        with capture_logs() as lines:
            await refused(mirror, clients.contexts["two names"], lines)
        assert [each["reason"] for each in lines] == ["it has more than one common name"]


async def test_expired_revocation_list_refuses_all(clients: Clients, tmp_path: Path) -> None:
    """The operator reads which file it is."""
    async with asking(clients, tmp_path, client_crl=clients.outdated) as (mirror, _):
        with capture_logs() as lines:
            await refused(mirror, clients.contexts["alice"], lines)
        assert lines[0]["reason"] == "the revocation list in server.client_crl has expired"


async def test_connection_ends_with_its_certificate(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle connection is closed, and no remembered response is given on it."""
    monkeypatch.setattr("mirror.access.certificate.seconds_left", lambda _certificate: 0.2)
    async with (
        asking(clients, tmp_path) as (mirror, _),
        await Wire.open(mirror.address, clients.contexts["alice"]) as wire,
    ):
        assert await wire.reader.read() == b""


RULES = [{"name": "alice", "effect": "allow", "identities": ["cert:alice", "san:ci.lan"]}]
MANIFEST = "/v2/team/app/manifests/1"


async def test_rules_know_the_names_of_certificates(clients: Clients, tmp_path: Path) -> None:
    """Each request of a connection is that of its certificate; no remembered response crosses."""
    async with AsyncExitStack() as stack:
        mirror, hub = await stack.enter_async_context(asking(clients, tmp_path, RULES, access="deny"))
        statuses = {"alice": 200, "bob": 404, "nobody": 404, "ci": 200}
        wires = {
            name: await stack.enter_async_context(await Wire.open(mirror.address, clients.contexts[name]))
            for name in statuses
        }
        with capture_logs() as lines:
            for _ in range(5):
                for name, wire in wires.items():
                    wire.send("GET", MANIFEST)
                    assert (await wire.reply()).status == statuses[name], name
                    wire.send("GET", MANIFEST.replace("/v2/", "/v2/hub.test/"))
                    assert (await wire.reply()).status == (200 if statuses[name] == 200 else 403), name
        denied = {each["note"] for each in lines if each.get("outcome") == "denied"}
        assert denied == {"denied by the default of [access]"}
        assert len([seen for seen in hub.log if "/manifests/" in seen.path]) == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_is_resumed(
    clients: Clients, tmp_path: Path, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate is verified at each connection: it may have been revoked since the last one."""
    context, sessions = clients.contexts["alice"], list[Any]([None])
    monkeypatch.setattr(context, "maximum_version", version)

    def ask_again() -> tuple[bytes, bool | None]:
        host, _, port = mirror.address.rpartition(":")
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host, session=sessions[-1]) as tls,
        ):
            tls.send(request_head("GET", MANIFEST))
            answer = tls.recv(1000)
            sessions.append(tls.session)
            return answer[9:12], tls.session_reused

    async with asking(clients, tmp_path, RULES, access="deny") as (mirror, _):
        assert [await asyncio.to_thread(ask_again) for _ in range(2)] == [(b"200", False)] * 2


async def test_plain_http_to_the_tls_port_is_no_warning(clients: Clients, tmp_path: Path) -> None:
    """A scanner must not fill the log."""
    async with asking(clients, tmp_path) as (mirror, _):
        with capture_logs() as lines:
            async with await Wire.open(mirror.address) as wire:
                wire.send("GET", "/v2/")
                assert b"200" not in await wire.reader.read()
        assert not [each for each in lines if each["log_level"] == "warning"]


async def test_client_that_says_nothing_is_closed(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without a first byte takes no place for long, and no line of the log."""
    monkeypatch.setattr(acceptor, "FIRST_BYTE_SECONDS", 0.05)
    async with asking(clients, tmp_path) as (mirror, _):
        with capture_logs() as lines:
            async with await Wire.open(mirror.address) as wire:
                assert await wire.reader.read() == b""
        assert lines == []
