"""A client of the JSON API of a running mirror: where it is, with which token, and one question at a time."""

import http.client
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from mirror.config.schema import Config
from mirror.doctor.health_check import Unhealthy, compare_certificate
from mirror.oci import json_text
from mirror.system.addresses import reachable

# Environment of commands that ask a running mirror.
URL_VARIABLE, TOKEN_VARIABLE = "REGISTRY_MIRROR_URL", "REGISTRY_MIRROR_TOKEN"

# The header without which the API changes nothing.
CHANGE_HEADER = "X-Registry-Mirror"

# Longest answer that is read, in bytes, and the most values in it: 3,000 running requests, for instance.
LONGEST, MOST_VALUES = 8 * 1024 * 1024, 256 * 1024

# Longest token that is read from a file, in bytes.
LONGEST_TOKEN = 1024

NO_PAGES = (
    "this configuration has no pages to ask: give them an address, for instance listen = ["
    '"127.0.0.1:5002"] under [admin], and restart the mirror; or name another mirror with --server URL'
)


class NoAnswer(Exception):
    """The API cannot be asked, or does not answer; the text says why, and what to do."""


class Refused(NoAnswer):
    """The API answers this visitor with 401 or 403."""


class Unfit(NoAnswer):
    """The API refuses a question as such: it is wrong, about nothing known, or for another time."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class PagesPlace(Struct, frozen=True):
    """A place where an API is. `certificate`: the file whose first certificate the server must have."""

    url: str
    certificate: Path | None = None


def configured_place(config: Config) -> PagesPlace:
    """Return where the pages of the mirror with this configuration are. Raises NoAnswer if nowhere."""
    admin, server = config.admin, config.server
    if not admin.listen:
        raise NoAnswer(NO_PAGES)
    host = reachable(admin.listen[0])
    if server.tls_certificate is None or host.startswith(("127.", "localhost:", "[::1]")):
        return PagesPlace(f"http://{host}")
    return PagesPlace(f"https://{host}", Path(server.tls_certificate))


def token_of(file: Path | None, env: Mapping[str, str]) -> str | None:
    """Return the token in a file, else that of the environment. Raises NoAnswer for an unfit one."""
    text = env.get(TOKEN_VARIABLE, "")
    if file is not None:
        try:
            with file.open(errors="replace") as opened:
                text = opened.read(LONGEST_TOKEN + 1)
        except OSError as error:
            raise NoAnswer(f"the token in {file} cannot be read: {error.strerror}") from None
    text = text.strip()
    if len(text) > LONGEST_TOKEN or not (text.isascii() and text.isprintable()):
        where = TOKEN_VARIABLE if file is None else str(file)
        raise NoAnswer(f"{where} has no token: it is one line that begins with rmt_")
    return text or None


class AdminClient:
    """A connection to an API. No proxy is used, and no redirect is followed."""

    def __init__(
        self, place: PagesPlace, token: str | None = None, seconds: float = 5.0, ca: str | None = None
    ) -> None:
        """`seconds`: longest wait for each step; `ca`: file of a private CA. Raises NoAnswer."""
        self._place = place
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._is_known = False  # the server has shown the certificate of the place
        self._connection = self._new_connection(seconds, ca)

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self._place.url

    def close(self) -> None:
        """Close the connection; the next question opens another one."""
        self._connection.close()
        self._is_known = False

    def get(self, path: str) -> Any:
        """Return the value of an answer. Raises NoAnswer, Refused."""
        return self._ask("GET", path, None)

    def change(self, method: str, path: str, values: Mapping[str, object]) -> Any:
        """Change something; return the value of the answer. Raises NoAnswer, Refused, Unfit."""
        return self._ask(method, path, values)

    def _ask(self, method: str, path: str, values: Mapping[str, object] | None) -> Any:
        try:
            status, body = self._exchange(method, f"/api/v1/{path}", values)
        except (http.client.HTTPException, OSError, Unhealthy) as error:
            self.close()
            reason = getattr(error, "strerror", None) or str(error) or "it closed the connection"
            raise NoAnswer(f"{self.url} does not answer: {reason}. Is the mirror running?") from None
        value: Any = None
        with suppress(ValueError):
            value = json_text.parse(body, MOST_VALUES)
        if status == 200 and value is not None:
            return value
        self.close()
        raise self._refusal(status, value)

    def _refusal(self, status: int, value: Any) -> NoAnswer:
        words = [value.get("error"), value.get("to_do")] if isinstance(value, dict) else []
        reason = ": ".join(str(each)[:300] for each in words if each)
        if status in (401, 403):
            return Refused(f"{self.url} refuses this: {reason or status}")
        if status in (404, 409, 422, 429) and reason:
            return Unfit(reason, status)
        what = reason or "that is no API of a registry-mirror; the address is that of admin.listen"
        return NoAnswer(f"{self.url} answered {status}: {what}")

    def _exchange(self, method: str, path: str, values: Mapping[str, object] | None) -> tuple[int, bytes]:
        connection = self._connection
        if connection.sock is None:
            connection.connect()
        if self._place.certificate is not None and not self._is_known:
            compare_certificate(connection.sock, self._place.certificate)
            self._is_known = True
        body, headers = None, self._headers
        if values is not None:
            body = msgspec.json.encode(values)
            headers = {**headers, "Content-Type": "application/json", CHANGE_HEADER: "1"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = answer.read(LONGEST + 1)
        if len(found) > LONGEST:
            raise http.client.HTTPException(f"its answer is longer than {LONGEST} bytes")
        if answer.will_close:
            self.close()
        return answer.status, found

    def _new_connection(self, seconds: float, ca: str | None) -> http.client.HTTPConnection:
        scheme, host, port = _address(self._place.url)
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=seconds)
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=self._context(ca))

    def _context(self, ca: str | None) -> ssl.SSLContext:
        if self._place.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        try:
            return ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise NoAnswer(f"the certificates in {ca} cannot be read: {error.strerror or error}") from None


def _address(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL. Raises NoAnswer for what is none."""
    with suppress(ValueError):  # of brackets, of a port, and of a host that no name server can have
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        host.encode("idna")
        fits = host and host.isprintable() and " " not in host and not parts.username
        if fits and parts.scheme in ("http", "https"):
            return parts.scheme, host, port
    raise NoAnswer("--server must be a URL without a password: http://HOST:PORT or https://HOST:PORT")
