"""Parsers of what clients log in with, of files with logins, and of the output of credential helpers."""

# ruff: noqa: PT017  # not a test: errors that a parser documents are looked at, and accepted

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from multidict import CIMultiDict

from mirror.access.htpasswd import parse_htpasswd
from mirror.access.tokens import (
    PREFIX,
    TokenEntry,
    TokenTable,
    digest_of,
    is_well_formed,
    redacted,
    with_checksum,
)
from mirror.credentials import docker_config
from mirror.credentials.command import answer_of
from mirror.credentials.credential import Credential, CredentialError
from mirror.credentials.helper import login_in
from mirror.credentials.process import Finished
from mirror.upstream.http.redirect import parse_url
from mirror.upstream.retry import LONGEST_WAIT, parse_retry_after
from mirror.web.identity.credentials import (
    AUTHORIZATION_BYTES,
    BASIC,
    Credentials,
    WrongCredentials,
    parse_login,
)
from mirror.web.identity.signer import TokenSigner
from tests.fuzz.parsers.trial import ACCEPTED, REFUSED, Parser

SECRETS = [with_checksum(f"{PREFIX}{letter * 52}") for letter in "az7"]
TABLE = TokenTable(TokenEntry("ci", digest_of(each), 0.0) for each in SECRETS)
SIGNER = TokenSigner(b"k" * 32, lambda: 1_000_000.0)
SIGNED = [SIGNER.make(handles) for handles in ((), ("basic:alice",), ("basic:alice:x", "token:ci"))]
OUTDATED = TokenSigner(SIGNER.key, lambda: 0.0).make(("basic:alice",))
BCRYPT = "$2y$05$" + "abcdefghijklmnopqrstu." + "A" * 31
ARGON2 = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"


class Request:
    """The parts of a request that credentials are read from."""

    def __init__(self, path: str, authorization: Sequence[str]) -> None:
        self.raw_path = path
        self.headers = CIMultiDict([("Authorization", each) for each in authorization])


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def check_authorization(data: bytes) -> bool:
    """A header is refused as a whole or read; a login has a user without a colon."""
    headers = text_of(data).split("\n")
    request: Any = Request("/v2/", headers)
    try:
        shown = Credentials.of_header(request, "192.0.2.1")
    except WrongCredentials as error:
        assert error.status == 401
        assert len(headers) > 1 or len(headers[0]) > AUTHORIZATION_BYTES
        return REFUSED
    assert shown.scheme == shown.scheme.lower()
    if shown.login is None:
        return REFUSED
    assert shown.scheme == BASIC
    user, password = shown.login.user, shown.login.password
    assert user
    assert ":" not in user
    assert parse_login(b64encode(f"{user}:{password}".encode()).decode()) == shown.login
    return ACCEPTED


def check_token(data: bytes) -> bool:
    """No other text is a token than the one that was made; no log line has a secret in it."""
    text = text_of(data)
    found = TABLE.find(text)
    assert (found is not None) == (text in SECRETS)
    assert not is_well_formed(text) or with_checksum(text[:-7]) == text
    shown = redacted(text)
    assert redacted(shown) == shown
    assert not any(each in shown for each in SECRETS)
    return REFUSED if found is None else ACCEPTED


def check_signed_token(data: bytes) -> bool:
    """No other text is a token than one that was signed, and none is after its time."""
    text = text_of(data)
    try:
        passed = SIGNER.read(text)
    except WrongCredentials as error:
        assert error.status == 401
        return REFUSED
    assert text in SIGNED
    assert passed.seconds > 0
    return ACCEPTED


def check_htpasswd(data: bytes) -> bool:
    """The users are written and read again; no error repeats a hash."""
    text = data.decode("utf-8", "replace")
    try:
        users = parse_htpasswd(text)
    except ValueError as error:
        assert "line " in str(error)
        names = [line.partition(":")[0] for line in text.splitlines()]
        for hashed in (BCRYPT[7:], ARGON2[31:], "{SHA}abc", "$apr1$x"):
            assert hashed not in str(error) or any(hashed in name for name in names)
        return REFUSED
    assert parse_htpasswd("\n".join(f"{user}:{hashed}" for user, hashed in users.items())) == users
    return ACCEPTED if users else REFUSED


def check_docker_config(data: bytes) -> bool:
    """A login is one that a header can carry; no error repeats a password."""
    try:
        config = docker_config.parse(data)
    except ValueError as error:
        return _refused(error)
    for url in ("https://quay.io", "https://registry-1.docker.io", "http://r.lan:5000"):
        servers = docker_config.servers_of(url)
        docker_config.names(config, servers)
        docker_config.unused(config, servers)
        try:
            found = docker_config.find(config, servers)
        except ValueError as error:
            _refused(error)
        else:
            if isinstance(found, Credential):
                _check_header(found)
    return ACCEPTED


def check_helper(data: bytes) -> bool:
    try:
        found = login_in("docker-credential-x", "quay.io", Finished(data[:1] == b"\x01", data[1:]))
    except CredentialError as error:
        return _refused(error)
    if found is not None:
        _check_header(found)
    return ACCEPTED


def check_command(data: bytes) -> bool:
    try:
        found = answer_of("command", "alice", Finished(0, data), 60.0, lambda: 1_000_000.0)
    except CredentialError as error:
        return _refused(error)
    assert found.credential is not None
    assert found.fresh > 0
    _check_header(found.credential)
    return ACCEPTED


def _refused(error: Exception) -> bool:
    assert "s3cr3t" not in str(error)
    assert len(str(error)) < 500
    return REFUSED


def _check_header(found: Credential) -> None:
    if (header := found.basic) is not None:
        assert header.isascii()
        assert header.isprintable()


def check_retry_after(data: bytes) -> bool:
    found = parse_retry_after(text_of(data))
    assert found is None or 0 <= found <= LONGEST_WAIT
    return REFUSED if found is None else ACCEPTED


def check_url(data: bytes) -> bool:
    """A URL that an upstream names can be sent: printable, one host, the same when it is read again."""
    try:
        url = parse_url(text_of(data))
    except ValueError:
        return REFUSED
    written = str(url)
    assert written.isascii()
    assert written.isprintable()
    assert str(parse_url(written)) == written
    return ACCEPTED


PARSERS = (
    Parser(
        "authorization",
        check_authorization,
        (
            b"Basic " + b64encode(b"alice:s3cr3t"),
            b"basic  " + b64encode("jürgen:pass:wörd".encode()) + b" ",
            b"Basic " + b64encode(b"j\xfcrgen:x"),
            b"Basic Og==",
            b"Bearer " + SIGNED[0].encode(),
            b"Bearer abc\nBasic Og==",
            b"",
        ),
        (b"Basic ", b"Bearer ", b"Og==", b"=", b"\n", b" ", b"OjpB", b"YTpi", b"AAAA", b"\t", b"x:y"),
    ),
    Parser(
        "token",
        check_token,
        (*(each.encode() for each in SECRETS), f"/t/{SECRETS[0]}/v2/ {SECRETS[1]}".encode(), PREFIX.encode()),
        (PREFIX.encode(), b"a" * 52, b"rmt", b"/t/", b"A", b"2", b"=", SECRETS[2].encode()),
    ),
    Parser(
        "signed token",
        check_signed_token,
        (*(each.encode() for each in SIGNED), OUTDATED.encode(), b"rmt1.W10.AAAA", b"rmt1.."),
        (b"rmt1.", b".", b"=", b"W10", b"bnVsbA", b"e30", b"A", SIGNED[0].encode()[-43:], b"rmt1.rmt1."),
    ),
    Parser(
        "htpasswd",
        check_htpasswd,
        (
            f"alice:{BCRYPT}\nbob:{ARGON2}\n".encode(),
            f"# users\n\n  carol:{BCRYPT.replace('$2y$', '$2b$')}\r\n".encode(),
            b"dave:$apr1$x$y\n",
            b"eve:{SHA}abc=\nplain:password\n",
        ),
        (
            *(
                b":",
                b"\n",
                b"$2y$05$",
                b"$2b$99$",
                b"$argon2id$v=19$m=9999999999,t=3,p=4$",
                b"#",
                b" ",
                b"\xc2\x85",
            ),
            *(b"\xe2\x80\xa8", b"alice", BCRYPT.encode(), ARGON2.encode(), b"\x0c", b"\r"),
        ),
    ),
    Parser(
        "docker config",
        check_docker_config,
        (
            b'{"auths": {"quay.io": {"auth": "' + b64encode(b"alice:s3cr3t") + b'"}}}',
            b'{"auths": {"https://index.docker.io/v1/": {"identitytoken": "s3cr3t", "username": "a"}}}',
            b'{"auths": {"r.lan:5000": {"username": "a", "password": "s3cr3t"}}, "credsStore": "pass"}',
            b'{"credHelpers": {"quay.io": "ecr-login", "https://r.lan:5000/v2/": "x"}}',
        ),
        (
            *(
                b'"auths"',
                b'"auth"',
                b'"credsStore"',
                b"{",
                b"}",
                b"null",
                b"[]",
                b'"\\ud800"',
                b'"quay.io"',
                b":",
            ),
            *(b'"identitytoken"', b'"username"', b"Ojo=", b"https://", b"/v1/", b"\\u0000", b","),
        ),
    ),
    Parser(
        "credential helper",
        check_helper,
        (
            b'\x00{"ServerURL":"quay.io","Username":"alice","Secret":"s3cr3t"}',
            b'\x00{"ServerURL":"","Username":"<token>","Secret":"s3cr3t"}\n',
            b'\x00{"ServerURL":"x","Username":"","Secret":""}',
            b"\x01credentials not found in native keychain\n",
            b"\x01s3cr3t",
        ),
        (
            b'"Username"',
            b'"Secret"',
            b"<token>",
            b'"\\ud800"',
            b"\\n",
            b"{",
            b"}",
            b"null",
            b":",
            b"\x01",
            b"\x00",
        ),
    ),
    Parser(
        "password command",
        check_command,
        (
            b"s3cr3t\n",
            b'{"password": "s3cr3t", "expires": "2030-01-31T12:00:00Z"}',
            b'{"username": "AWS", "password": "s3cr3t", "expires_in": 43200}',
            b'{"Username": "x", "Secret": "s3cr3t", "expires": 1900000000}',
        ),
        (
            b'"password"',
            b'"expires"',
            b'"expires_in"',
            b'"\\udfff"',
            b"1e400",
            b"NaN",
            b"-1",
            b"{",
            b"}",
            b"null",
        ),
    ),
    Parser(
        "retry-after",
        check_retry_after,
        (b"120", b"Sat, 28 Nov 2026 20:00:00 GMT", b"1h5m30s", b"1.5s", b"Sunday, 06-Nov-94 08:49:37 GMT"),
        (b"GMT", b"s", b"m", b"h", b"ms", b"Sat, ", b" ", b":", b".", b"-0000", b"9999"),
    ),
    Parser(
        "url",
        check_url,
        (
            b"https://auth.docker.io/token?service=x&scope=repository%3Aa%2Fb",
            b"http://user:s3cr3t@[2001:db8::1]:8443/a b#frag",
            b"//host/path",
            b"HTTPS://EXAMPLE.com:443/\xc3\xa9?x=%zz",
        ),
        (
            b"http://",
            b"https:",
            b"//",
            b"@",
            b":",
            b"[",
            b"]",
            b"%",
            b"#",
            b"?",
            b"\\",
            b"..",
            b":99999",
            b"xn--",
            b"::",
        ),
    ),
)
