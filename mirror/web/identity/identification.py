"""The first step of a request: who sends it, by address, connection and credentials."""

from collections.abc import Sequence

from aiohttp import web

from mirror.access.forwarded import HEADER, client_address
from mirror.access.groups import Groups
from mirror.access.identity import Identity
from mirror.access.rules import Network
from mirror.cache.results import FOREVER
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Target, TargetKind
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.util.fairness.client import set_client
from mirror.web.access_control import AccessDenied
from mirror.web.identity.challenge import NOWHERE, Challenges
from mirror.web.identity.credentials import (
    Authenticator,
    Claim,
    Credentials,
    NotVerified,
    WrongCredentials,
)
from mirror.web.protocol import RequestProtocol
from mirror.web.request_log import RequestRecord

NO_GROUPS = Groups()


class Identification:
    """The authenticators, asked in their order; each one adds the principals that it has verified.

    `authenticators` may be appended to before the first request. `challenges`: where clients may log in.
    `groups`: which principals are in which. `guests`: whether credentials that no authenticator knows may be
    a client's own for an upstream.
    """

    def __init__(
        self,
        trusted_proxies: Sequence[Network] = (),
        authenticators: Sequence[Authenticator] = (),
        challenges: Challenges = NOWHERE,
        groups: Groups = NO_GROUPS,
        *,
        guests: bool = False,
    ) -> None:
        self._trusted = trusted_proxies
        self._groups = groups
        self._guests = guests
        self._challenges = challenges
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

        Raises WrongCredentials for some that prove nothing, where clients may log in. Elsewhere these are
        ignored: a Docker daemon sends its login for a registry to a mirror of that registry unasked. Not so
        those that can only be meant for this mirror.
        """
        request = record.request
        address = client_address(request.remote or "", request.headers.getall(HEADER, []), self._trusted)
        record.identity = Identity(address, _names_of_connection(request))
        record.may_log_in = self._challenges.cover(request)
        set_client(address)
        if self.authenticators or record.may_log_in or self._guests:
            await self._read_credentials(record)
        if record.identity.names:
            record.identity = record.identity.also(self._groups.of(record.identity.names))
            set_client(address, record.identity.names)

    async def _read_credentials(self, record: RequestRecord) -> None:
        request = record.request
        try:
            # Whatever the header has: a secret that stays in the path would be asked of an upstream.
            await self._claim(record, Credentials.of_path(request, record.client))
            await self._verify(record, Credentials.of_header(request, record.client))
        except WrongCredentials as wrong:
            if record.may_log_in:
                raise self._challenges.refusal(request, wrong) from None
            if wrong.ours:
                raise
            _ignore(record, wrong)

    def insist(self, record: RequestRecord, target: Target) -> None:
        """Raise LoginRequired at the start of a pull, if the client may log in and has not done so.

        Most clients look for a challenge there, and nowhere else.
        """
        if target.kind is TargetKind.BASE and _should_log_in(record):
            raise self._login(record, target)

    def instead_of(self, denied: AccessDenied, record: RequestRecord, target: Target) -> RegistryError:
        """Return what a client gets in place of a refusal: a challenge, if it has not logged in and may."""
        missing = _should_log_in(record) or _pushes_as_nobody(record)
        return self._login(record, target, denied.message) if missing else denied

    def _login(self, record: RequestRecord, target: Target, reason: str = "") -> RegistryError:
        record.ttl = FOREVER  # of the request as it is, without credentials
        return self._challenges.login(record.request, target, reason)

    async def _claim(self, record: RequestRecord, shown: Credentials) -> None:
        """Note what credentials prove to the first authenticator that knows them; others do not."""
        for each in self.authenticators:
            claim = await each.claim(shown)
            if claim is not None:
                note(record, claim)
                break

    async def _verify(self, record: RequestRecord, shown: Credentials) -> None:
        if shown.scheme:
            await self._claim(record, shown)
        if self._guests and not record.has_login:
            record.guest = GuestLogin.parse(record.request.headers.get("Authorization", ""))
        if record.guest is None and shown.scheme and record.may_log_in and not record.has_login:
            raise WrongCredentials("this mirror does not know such credentials")


def note(record: RequestRecord, claim: Claim) -> None:
    """Note in the record what credentials have proven."""
    record.identity = record.identity.also(claim.names).within(claim.restrictions)
    record.identity_ttl = min(record.identity_ttl, claim.seconds)
    record.path_prefix = claim.path_prefix or record.path_prefix
    record.handles += (claim.handle,) if claim.handle else ()
    record.has_login = True


def _ignore(record: RequestRecord, wrong: WrongCredentials) -> None:
    """Go on as for a client without credentials; say so in the access line."""
    record.note = f"credentials not taken: {wrong.message}"
    if isinstance(wrong, NotVerified):
        record.identity_ttl = 0.0


def _should_log_in(record: RequestRecord) -> bool:
    is_known = record.has_login or record.guest is not None or record.identity.names
    return record.may_log_in and not is_known


def _pushes_as_nobody(record: RequestRecord) -> bool:
    """Return whether a client that may log in wants to change something with a token for nobody."""
    is_known = record.guest is not None or record.identity.names
    return record.may_log_in and not is_known and record.request.method not in ("GET", "HEAD")


def _names_of_connection(request: web.BaseRequest) -> tuple[str, ...]:
    protocol = request.protocol
    return protocol.names if isinstance(protocol, RequestProtocol) else ()
