"""Challenges: by which names of the mirror clients may log in, and how they are asked to.

Docker hands its Docker Hub password, and containerd the pull secret, to a mirror that challenges. So a client
is asked only where the operator wants that: at the names of `access.login_hosts`. It is asked at /v2/, where
most clients look for it, and where nobody may have what it asks for. The challenge is Bearer alone: of two
schemes most clients take the first one, and some of them end there. It is Basic alone where clients may come
with credentials for an upstream, which a token cannot stand for: they are kept nowhere.
"""

from collections.abc import Sequence

from aiohttp import web

from mirror.access.forwarded import is_among
from mirror.access.policy import parse_address
from mirror.access.rules import Network
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Target, TargetKind, Via
from mirror.oci.registries import canonical_host, split_port
from mirror.web.connections.request_target import host_of
from mirror.web.identity.credentials import BEARER, WrongCredentials

EVERYWHERE = "*"

# The path of the token service.
TOKEN_PATH = "/token"  # noqa: S105  # no password

# What a token would be for, by the method of a request, as registries and clients name it.
ACTIONS = {"POST": "pull,push", "PUT": "pull,push", "PATCH": "pull,push", "DELETE": "delete"}

BASIC_CHALLENGE = 'Basic realm="registry-mirror"'

FORWARDED_SCHEME = "X-Forwarded-Proto"


class LoginRequired(RegistryError):
    """The answer to a client that has not said who it is, and would have to."""

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(Code.UNAUTHORIZED, message, headers={"WWW-Authenticate": challenge})


class Challenges:
    """The names at which clients may log in; `trusted_proxies` are believed about TLS in front of them.

    `basic`: ask for user and password with each request.
    """

    def __init__(
        self, hosts: Sequence[str] = (), trusted_proxies: Sequence[Network] = (), *, basic: bool = False
    ) -> None:
        self._basic = basic
        self._hosts = frozenset(hosts)
        self._trusted = trusted_proxies

    def cover(self, request: web.BaseRequest) -> bool:
        """Return whether clients may log in at the name that the request was sent to."""
        if not self._hosts or EVERYWHERE in self._hosts:
            return bool(self._hosts)
        host = canonical_host(request.headers.get("Host", "").rstrip("."))
        return host is not None and (host in self._hosts or split_port(host)[0] in self._hosts)

    def login(self, request: web.BaseRequest, target: Target, reason: str = "") -> LoginRequired:
        """Return what asks the client to log in; `reason`: why, if not for the start of a pull."""
        message = reason or "this mirror wants to know who you are"
        host = host_of(request)
        header = self._header(request, _scope(request, target))
        if not self._basic and request.headers.get("Authorization", "").lower().startswith(BEARER):
            header += (
                ',error="insufficient_scope"'  # a token for nobody: clients with a login get another one
            )
        return LoginRequired(f"{message}: log in at {host}", header)

    def refusal(self, request: web.BaseRequest, wrong: WrongCredentials) -> WrongCredentials:
        """Return the refusal of wrong credentials, with the challenge to get others."""
        if wrong.code is not Code.UNAUTHORIZED:
            return wrong
        challenge = self._header(request)
        if is_token_request(request):  # there is a password to be given
            challenge = BASIC_CHALLENGE
        elif not self._basic and request.headers.get("Authorization", "").lower().startswith(BEARER):
            # Clients get a new token in mid-pull only if this is said of the old one.
            challenge += ',error="invalid_token"'
        wrong.headers["WWW-Authenticate"] = challenge
        return wrong

    def _header(self, request: web.BaseRequest, scope: str = "") -> str:
        if self._basic:
            return BASIC_CHALLENGE
        host = host_of(request)
        # Clients refuse a realm at another port, and a relative one.
        realm = f"{self._scheme(request)}://{host}{TOKEN_PATH}"
        return f'Bearer realm="{realm}",service="{host}"' + (f',scope="{scope}"' if scope else "")

    def _scheme(self, request: web.BaseRequest) -> str:
        transport = request.transport
        if transport is not None and transport.get_extra_info("ssl_object") is not None:
            return "https"
        if is_among(parse_address(request.remote or ""), self._trusted):
            return "https" if request.headers.get(FORWARDED_SCHEME, "").lower() == "https" else "http"
        return "http"


NOWHERE = Challenges()


def is_token_request(request: web.BaseRequest) -> bool:
    """Return whether the request is for the token service."""
    return request.raw_path.partition("?")[0] == TOKEN_PATH


def _scope(request: web.BaseRequest, target: Target) -> str:
    """Return what a token would be for, by the name that the client used."""
    if target.kind is TargetKind.CATALOG:
        return "registry:catalog:*"
    if target.repository is None:
        return ""
    name = str(target.repository) if target.via is Via.PREFIX else target.repository.path
    return f"repository:{name}:{ACTIONS.get(request.method, 'pull')}"
