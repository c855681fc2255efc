"""Accounts of guests at one upstream: made of a client's credentials, for as long as work for it runs."""

import math
from collections.abc import Callable
from weakref import WeakValueDictionary

from yarl import URL

from mirror.config.endpoints import UpstreamSettings
from mirror.credentials.credential import Answer, Credential
from mirror.credentials.login import Login
from mirror.oci.challenge import Challenge
from mirror.upstream.account.verdict import PasswordVerdict, refused
from mirror.upstream.accounts import Account
from mirror.upstream.auth import AuthDemand, Authorizer
from mirror.upstream.errors import UpstreamError
from mirror.upstream.guests.current import Guest, current_guest
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.upstream.http.transport import Transport
from mirror.upstream.rate_limit import RateLimit
from mirror.util.tasks import Tasks
from mirror.util.ttl_cache import TTLCache

# The name of a guest's account: no log or metric has the user's.
GUEST = "guest"

# How long a repository is asked for with a guest's credentials at once, after those alone could read it, in
# seconds, and for how many repositories that is known.
ALONE_SECONDS = 300.0
ALONE_REPOSITORIES = 10_000


class GuestSource:
    """A login that a client sent. Nothing but its account refers to it."""

    name = GUEST
    advice = label = "the credentials that the client sent"

    def __init__(self, user: str, password: str) -> None:
        self.initial = Answer(Credential(user, password))

    async def fetch(self) -> Answer:
        return self.initial


class GuestVerdict(PasswordVerdict):
    """The word of the upstream on a client's password: no business of the operator, so nothing is logged."""

    def note_refusal(self, login: Credential, server: URL) -> None:
        self._refused, self._until, self.accepted = login, math.inf, False

    def note_acceptance(self, login: Credential) -> None:
        self._until, self.accepted = -math.inf, True

    def error(self) -> UpstreamError:
        return refused(f"{self._upstream} refused the user and password that the client sent", 401)


class TokenGuest(Authorizer):
    """Authorizer for a token that the client has from the upstream's token server; there is no other."""

    bearer = ""

    async def current(self, repository: str) -> str | None:
        return f"Bearer {self.bearer}"

    async def answer(self, demand: AuthDemand) -> str:
        raise refused(f"{self._transport.name} refused the token that the client sent", 401)

    def is_new(self, challenges: object) -> bool:
        return False

    def _token_for(self, challenge: Challenge, demand: AuthDemand) -> None:
        return None


class GuestAccounts:
    """The accounts of guests at one endpoint; none where it is not asked with clients' credentials."""

    def __init__(self, settings: UpstreamSettings, transport: Transport, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        # A source is another registry: a client's password for the upstream is not for it.
        self.allowed = settings.private == "as-upstream"
        self._tasks = Tasks()
        self._accounts: WeakValueDictionary[bytes, Account] = WeakValueDictionary()
        self._alone: TTLCache[str, bool] = TTLCache(ALONE_SECONDS, ALONE_REPOSITORIES, clock)

    def account(self, credentials: GuestLogin) -> Account:
        """Return the account of these credentials: one for all who work with them at a time."""
        key = credentials.key()
        account = self._accounts.get(key)
        if account is None:
            account = Account(GUEST, self._authorizer(credentials), RateLimit(self._clock))
            self._accounts[key] = account
        return account

    def _authorizer(self, credentials: GuestLogin) -> Authorizer:
        if credentials.token:
            bearer = TokenGuest(self._settings, self._transport, self._clock)
            bearer.bearer = credentials.token
            return bearer
        source = GuestSource(credentials.user, credentials.password)
        login = Login(self._settings.name, source, self._tasks, self._clock)
        auth = Authorizer(self._settings, self._transport, self._clock, login)
        auth.verdict = GuestVerdict(self._settings.name, source.advice, self._clock)
        return auth

    def current(self, path: str) -> Account | None:
        """Return the account of the guest that the running task works for, if it is for this repository."""
        guest = current_guest() if self.allowed else None
        if guest is None or (guest.upstream, guest.path) != (self._settings.name, path):
            return None
        return self.account(guest.credentials)

    def guest(self, path: str, credentials: GuestLogin) -> Guest:
        """Return a guest for one repository at the endpoint."""
        return Guest(self._settings.name, path, credentials, self.account(credentials))

    def is_alone(self, path: str) -> bool:
        """Return whether lately a guest could read a repository that the mirror's own accounts could not."""
        return bool(self._alone.get(path))

    def note_alone(self, path: str) -> None:
        """Record that a guest could read a repository that the mirror's own accounts could not."""
        self._alone.put(path, True)

    async def close(self) -> None:
        """End what runs for guests."""
        await self._tasks.close()

    def redacted(self, text: str) -> str:
        """Return `text` without what the current guest has for a secret, should an upstream echo it."""
        guest = current_guest()
        return text if guest is None else guest.credentials.redacted(text)
