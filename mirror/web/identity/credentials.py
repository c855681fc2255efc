"""Credentials as a request shows them, and what proves or refuses them."""

from base64 import b64decode
from binascii import Error as NotBase64

from aiohttp import web
from msgspec import Struct

from mirror.access.identity import Restriction
from mirror.cache.results import FOREVER
from mirror.oci.errors import Code, RegistryError

# Longest Authorization header that is read, in bytes: tokens of issuers have some thousand.
AUTHORIZATION_BYTES = 16 * 1024

# What podman and skopeo send to a server that asks for Basic when they have no login: no user, no password.
NO_LOGIN = "Og=="

BASIC, BEARER = "basic", "bearer"


class WrongCredentials(RegistryError):
    """Credentials that prove nothing, though they are of a kind that this mirror takes: 401.

    `ours`: they were made for this mirror, so that no client sends them by mistake.
    """

    def __init__(self, message: str, *, ours: bool = False) -> None:
        super().__init__(Code.UNAUTHORIZED, message)
        self.ours = ours


class NotVerified(WrongCredentials):
    """Credentials that nothing is known of, because too many are to be verified: 429 with Retry-After."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.code, self.status = Code.TOOMANYREQUESTS, 429
        self.headers["Retry-After"] = str(seconds)


class BasicLogin(Struct, frozen=True):
    """User and password of Basic authentication."""

    user: str
    password: str


class Credentials(Struct, frozen=True):
    """Credentials of one request: those in its path, or those in its header.

    `address`: the client's. `path`: undecoded, without the query; "" for those in the header. `scheme`: of
    the Authorization header, in lower case; "" without one. `value`: what is behind the scheme. `login`: of
    Basic, None if it is none.
    """

    address: str
    path: str = ""
    scheme: str = ""
    value: str = ""
    login: BasicLogin | None = None

    @classmethod
    def of_path(cls, request: web.BaseRequest, address: str) -> "Credentials":
        """Return what the path of the request may show."""
        return cls(address, request.raw_path.partition("?")[0])

    @classmethod
    def of_header(cls, request: web.BaseRequest, address: str) -> "Credentials":
        """Return what the header shows. Raises WrongCredentials for one that cannot be read."""
        headers = request.headers.getall("Authorization", [])
        if not headers:
            return cls(address)
        if len(headers) > 1 or len(headers[0]) > AUTHORIZATION_BYTES:
            raise WrongCredentials(f"send one Authorization header of at most {AUTHORIZATION_BYTES} bytes")
        scheme, _, value = headers[0].strip().partition(" ")
        scheme, value = scheme.lower(), value.strip()
        if scheme == BASIC and value == NO_LOGIN:
            return cls(address)
        return cls(address, "", scheme, value, parse_login(value) if scheme == BASIC else None)


class Claim(Struct, frozen=True):
    """Principals that credentials prove.

    `seconds`: for how long they do so without another look. `handle`: a text by which the same authenticator
    finds the principals again, for a token that stands for these credentials; "" if there is none.
    `path_prefix`: the part of the request's path that held the credentials. `restrictions`: of the
    credentials themselves, beyond the rules.
    """

    names: tuple[str, ...]
    seconds: float = FOREVER
    handle: str = ""
    path_prefix: str = ""
    restrictions: tuple[Restriction, ...] = ()


class Authenticator:
    """One kind of credentials, and how they are verified. Never blocks the event loop."""

    async def start(self) -> None:
        """Read what the authenticator needs. Raises OSError or ValueError, with what is wrong."""

    async def close(self) -> None:
        """End what runs in the background."""

    async def claim(self, shown: Credentials) -> Claim | None:
        """Return what the credentials prove; None if none of them is of this kind.

        Raises WrongCredentials if one is of this kind and proves nothing.
        """
        return None

    async def recall(self, handle: str) -> Claim | None:
        """Return the claim with this handle as of now; None if it is another's, or proves nothing now."""
        return None


def parse_login(value: str) -> BasicLogin | None:
    """Parse the value of a Basic header: UTF-8, else Latin-1; None if it is none."""
    try:
        data = b64decode(value, validate=True)
    except (NotBase64, ValueError):
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    user, colon, password = text.partition(":")
    return BasicLogin(user, password) if colon and user else None
