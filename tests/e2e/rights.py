"""Token server with users and rights, and a registry behind it, as a company has them.

client -> docker-registry (401) -> token server (Basic; JWT with what the user may read) -> docker-registry
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from tests.e2e.origin import Authority, ThreadedServer, claims_for, token_config
from tests.e2e.processes import Process, free_port, listens
from tests.programs import program


@dataclass
class Rights:
    """Passwords of users, and who may read each repository that is not public."""

    passwords: Mapping[str, str]
    readers: dict[str, set[str]]
    asked: list[str] = field(default_factory=list)  # the user of each request for a token; "" for nobody

    def may_read(self, user: str, repository: str) -> bool:
        return repository not in self.readers or user in self.readers[repository]


@contextmanager
def token_server_with(rights: Rights, authority: Authority) -> Iterator[str]:
    """Run a server that gives tokens for what a user may read of the requested scopes; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            user, password = _login(self.headers.get("Authorization", ""))
            rights.asked.append(user)
            if user and rights.passwords.get(user) != password:
                self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
                return
            query = parse_qs(urlsplit(self.path).query)
            scopes = [scope for each in query.get("scope", []) for scope in each.split()]
            granted = [each for each in scopes if rights.may_read(user, each.split(":")[1])]
            claims = claims_for({**query, "scope": granted})
            self._answer(200, {"token": authority.token(claims), "expires_in": 300})

        def _answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadedServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()


def _login(header: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


@dataclass
class GuardedRegistry:
    """A running registry, and the origin of its token server."""

    url: str
    realm: str
    process: Process
    rights: Rights


@contextmanager
def guarded_registry(storage: Path, folder: Path, rights: Rights) -> Iterator[GuardedRegistry]:
    """Run a registry of the images in `storage`, which asks for tokens."""
    folder.mkdir()
    authority, port = Authority(folder, "tokens"), free_port()
    with token_server_with(rights, authority) as realm:
        config = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(storage)}},
            "auth": {"token": token_config(realm, authority)},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        (folder / "registry.yml").write_text(json.dumps(config))
        command: list[str | Path] = [program("docker-registry"), "serve", folder / "registry.yml"]
        process = Process(command, folder / "registry.log", lambda: listens(port))
        with process:
            yield GuardedRegistry(f"http://127.0.0.1:{port}", realm.removesuffix("/token"), process, rights)
