"""The first step of a request: who sends it, by address, connection and credentials."""

from collections.abc import Sequence

from aiohttp import web

from mirror.access.forwarded import HEADER, client_address
from mirror.access.identity import Identity
from mirror.access.rules import Network
from mirror.util.fairness.client import set_client
from mirror.web.identity.credentials import Authenticator, Claim, Credentials
from mirror.web.protocol import RequestProtocol
from mirror.web.request_log import RequestRecord


class Identification:
    """The authenticators, asked in their order; each one adds the principals that it has verified.

    `authenticators` may be appended to before the first request.
    """

    def __init__(
        self, trusted_proxies: Sequence[Network] = (), authenticators: Sequence[Authenticator] = ()
    ) -> None:
        self._trusted = trusted_proxies
        self.authenticators = list(authenticators)

    async def start(self) -> None:
        """Start the authenticators. Raises OSError or ValueError for a file that cannot be used."""
        for each in self.authenticators:
            await each.start()

    async def close(self) -> None:
        """End what the authenticators do in the background."""
        for each in self.authenticators:
            await each.close()

    async def identify(self, record: RequestRecord) -> None:
        """Note in the record who sends the request.

        Credentials that are of a known kind and wrong are refused: raises WrongCredentials.
        """
        request = record.request
        address = client_address(request.remote or "", request.headers.getall(HEADER, []), self._trusted)
        record.identity = Identity(address, _names_of_connection(request))
        set_client(address)
        if not self.authenticators:
            return
        shown = Credentials.of(request, address)
        for each in self.authenticators:
            claim = await each.claim(shown)
            if claim is not None:
                note(record, claim)


def note(record: RequestRecord, claim: Claim) -> None:
    """Note in the record what credentials have proven."""
    record.identity = record.identity.also(claim.names)
    record.identity_ttl = min(record.identity_ttl, claim.seconds)
    record.path_prefix = claim.path_prefix or record.path_prefix
    record.handles += (claim.handle,) if claim.handle else ()
    record.has_login = True


def _names_of_connection(request: web.BaseRequest) -> tuple[str, ...]:
    protocol = request.protocol
    return protocol.names if isinstance(protocol, RequestProtocol) else ()
