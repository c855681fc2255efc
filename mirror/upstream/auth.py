"""Tokens and password of one account at an upstream (Distribution token specification, CLIENTS.md 6.1).

The handshake:

1. A request goes out with what the last challenge of the upstream asked for, or with nothing.
2. A 401 names challenges. Bearer comes first: a token is asked of its realm, for the scope
   `repository:<path>:pull` and never more, as some registries refuse a scope that is too wide.
   2a. With user and password, if the realm is on the upstream's own origin or in `realms`.
   2b. Else anonymously. Where the 401 came from a host that a redirect led to, always anonymously.
3. Basic comes second: user and password, to the upstream's own origin only.
4. The request is repeated once. A second 401 is final.
"""

import asyncio
import base64
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from yarl import URL

from mirror.config.endpoints import UpstreamSettings
from mirror.oci.challenge import Challenge
from mirror.upstream.error_body import excerpt
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.redirect import RedirectRules, origin, parse_url, refusal
from mirror.upstream.http.transport import Response, Transport
from mirror.upstream.outage import Outage
from mirror.upstream.retry import parse_retry_after
from mirror.util.log import get_logger, redact_url

log = get_logger(__name__)

MAX_TOKEN_BYTES = 1024 * 1024
# The specification's default, for the many servers that leave expires_in out.
_DEFAULT_LIFETIME = 60.0
# Renewed before the end, as the upstream's clock runs on while the request travels (BuildKit takes the same).
_USED_LIFETIME = 0.9
# Docker Hub locks an account for 10 minutes after some wrong passwords: do not knock at every request.
_REFUSED_FOR = 60.0
_MAX_SLOTS = 1000
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class TokenScope:
    """A 401 to be answered: its challenges, and the Authorization header it did not accept.

    `own`: it came from the upstream's own origin, not from where a redirect led.
    """

    challenges: tuple[Challenge, ...]
    repository: str
    own: bool
    rejected: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which token; the key of the cache. A token got with a password is never taken for an anonymous one."""

    realm: str
    service: str
    scope: str
    personal: bool


@dataclass(slots=True, repr=False)
class _Slot:
    """One token, and the lock under which it is fetched."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    header: str | None = None
    expires: float = 0.0
    failures: int = 0
    failure: UpstreamError | None = None


class Authorizer:
    """Answers the challenges of one upstream for one account, and remembers what it answered."""

    def __init__(self, settings: UpstreamSettings, transport: Transport, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._origin = origin(transport.url)
        self._realms = {origin(URL(realm)) for realm in settings.realms}
        self._slots: dict[_Wanted, _Slot] = {}
        self._last: Challenge | None = None
        self._refused_until = float("-inf")
        self._refused_by = ""
        self._refusal = Outage()

    @property
    def refused(self) -> bool:
        """True for a minute after the password was refused."""
        return self._clock() < self._refused_until

    @property
    def password_refused(self) -> bool:
        """True from a refusal of the password until it is accepted again."""
        return self._refusal.active

    def note_answer(self, authorization: str | None, status: int) -> bool:
        """Learn from an answer of the upstream to `authorization`; return True if it refused the password."""
        if authorization is None or authorization != self._password():
            return False
        if status == 401:
            self._note_refusal(self._transport.url)
        elif status < 400:
            self._note_acceptance()
        return status == 401

    def refusal(self) -> UpstreamError:
        """Return the error of a request that failed because the password was refused."""
        message = (
            f"{self._transport.name}: {self._refused_by} refused the password of user "
            f"{self._settings.username}: check username and password_file"
        )
        return UpstreamError(Failure.DENIED, message, status=401)

    def _note_refusal(self, server: URL) -> None:
        """Warn once until the password is accepted again."""
        now = self._clock()
        self._refused_until, self._refused_by = now + _REFUSED_FOR, server.host or ""
        if self._refusal.failed(now) is not None:
            log.warning(
                "password refused, check username and password_file",
                upstream=self._transport.name,
                account=self._settings.username,
                server=server.host,
            )

    def _note_acceptance(self) -> None:
        self._refused_until = float("-inf")
        if self._refusal.ended(self._clock()) is not None:
            upstream, account = self._transport.name, self._settings.username
            log.info("password accepted again", upstream=upstream, account=account)

    async def known(self, repository: str) -> str | None:
        """The Authorization header the upstream will want, by its last challenge; None before the first."""
        if self._last is None:
            return None
        return await self.answer(TokenScope((self._last,), repository, own=True))

    async def answer(self, demand: TokenScope) -> str:
        """The Authorization header that answers a 401; UpstreamError(DENIED) when there is none."""
        refusals = []
        for challenge in self._in_order(demand.challenges):
            try:
                if challenge.scheme == "bearer":
                    header = await self._bearer(challenge, demand)
                else:
                    header = self._basic(demand)
            except _Unusable as reason:
                refusals.append(str(reason))
                continue
            if demand.own:
                self._last = challenge
            return header
        reasons = "; ".join(refusals) or "the upstream did not say how"
        message = f"{self._transport.name}: cannot authenticate: {reasons}"
        raise UpstreamError(Failure.DENIED, message, status=401)

    def _in_order(self, challenges: Iterable[Challenge]) -> list[Challenge]:
        usable = [challenge for challenge in challenges if challenge.scheme in ("bearer", "basic")]
        return sorted(usable, key=lambda challenge: challenge.scheme != "bearer")

    def _basic(self, demand: TokenScope) -> str:
        if not demand.own:
            raise _Unusable("no password is sent to the target of a redirect")
        header = self._password()
        if header is None:
            host = self._transport.url.host
            raise _Unusable(
                f"{host} wants user and password, and none are configured: set username and password_file"
            )
        if header == demand.rejected:
            raise self.refusal()
        return header

    async def _bearer(self, challenge: Challenge, demand: TokenScope) -> str:
        realm = self._realm(challenge, demand)
        personal = demand.own and self._settings.username is not None and self._may_see_password(realm)
        wanted = _Wanted(
            realm=str(realm),
            service=challenge.parameters.get("service", ""),
            scope=self._scope(challenge, demand),
            personal=personal,
        )
        return await self._token(wanted, demand.rejected)

    def _scope(self, challenge: Challenge, demand: TokenScope) -> str:
        # The upstream's own challenge may carry a placeholder (ghcr.io); at the target of a redirect the
        # repository may have another name, which only the challenge knows.
        foreign = None if demand.own else challenge.parameters.get("scope")
        return foreign or f"repository:{demand.repository}:pull"

    def _may_see_password(self, realm: URL) -> bool:
        return origin(realm) == self._origin or origin(realm) in self._realms

    def _realm(self, challenge: Challenge, demand: TokenScope) -> URL:
        """The realm's URL if it may be asked at all."""
        try:
            realm = parse_url(challenge.parameters.get("realm", ""))
        except ValueError:
            raise _Unusable("its realm is not a URL") from None
        trusted = origin(realm) in self._realms
        rules = RedirectRules(self._transport.url, private=self._transport.private or trusted)
        secure = self._transport.url.scheme == "https"
        if realm.raw_user is not None or (reason := refusal(rules, realm, secure=secure)):
            why = "it names a user" if realm.raw_user is not None else reason
            raise _Unusable(f"its realm {redact_url(str(realm))} is not asked: {why}")
        return realm

    async def _token(self, wanted: _Wanted, rejected: str | None) -> str:
        """The cached token, or one new one for all who wait for the same."""
        slot = self._slot(wanted)
        seen = slot.failures
        async with slot.lock:
            if slot.header is not None and slot.header != rejected and self._clock() < slot.expires:
                return slot.header
            if slot.failure is not None and slot.failures > seen:
                # Somebody asked while we waited: a dead realm is not asked once for each who waits.
                raise _again(slot.failure)
            try:
                slot.header, lifetime = await self._fetch(wanted)
            except UpstreamError as error:
                slot.failures, slot.failure = slot.failures + 1, _again(error)
                raise
            slot.expires = self._clock() + lifetime * _USED_LIFETIME
            return slot.header

    def _slot(self, wanted: _Wanted) -> _Slot:
        if len(self._slots) > _MAX_SLOTS:
            now = self._clock()
            self._slots = {
                key: slot for key, slot in self._slots.items() if slot.lock.locked() or slot.expires > now
            }
        return self._slots.setdefault(wanted, _Slot())

    async def _fetch(self, wanted: _Wanted) -> tuple[str, float]:
        query = [("service", wanted.service)] if wanted.service else []
        realm = URL(wanted.realm, encoded=True)
        headers = {"Accept": "application/json"}
        if wanted.personal:
            headers["Authorization"] = self._unlocked_password()
        url = realm.extend_query([*query, ("scope", wanted.scope)])
        response = await self._transport.send("GET", url, headers)
        try:
            body = await self._transport.read(response, MAX_TOKEN_BYTES)
        finally:
            response.close()
        if response.status != 200:
            raise self._failure(wanted, response, body)
        if wanted.personal:
            self._note_acceptance()
        return self._parse(body)

    def _parse(self, body: bytes) -> tuple[str, float]:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        answer = document if isinstance(document, dict) else {}
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not _HEADER_SAFE.fullmatch(token):
            raise UpstreamError(Failure.INVALID, f"{self._transport.name}: the realm's answer holds no token")
        return f"Bearer {token}", _lifetime(answer.get("expires_in"))

    def _failure(self, wanted: _Wanted, response: Response, body: bytes) -> UpstreamError:
        status = response.status
        failure = _TOKEN_FAILURES.get(status, Failure.SERVER_ERROR if status >= 500 else Failure.INVALID)
        message = self._failure_words(wanted, status)
        if detail := self.redacted(excerpt(body, response.content_type)):
            message += f": {detail}"
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return UpstreamError(failure, message, status=status, retry_after=retry_after)

    def _failure_words(self, wanted: _Wanted, status: int) -> str:
        if status == 401 and wanted.personal:
            realm = URL(wanted.realm, encoded=True)
            self._note_refusal(realm)
            return self.refusal().message
        client = f"user {self._settings.username}" if wanted.personal else "an anonymous request"
        words = f"{self._transport.name}: {redact_url(wanted.realm)} answered {status} to {client}"
        if self._settings.username is not None and not wanted.personal:
            words += " (the password goes only to origins in realms)"
        return words

    def redacted(self, text: str) -> str:
        """`text` without the configured password, should an upstream echo it."""
        password = self._settings.password
        secret = password.get_secret_value() if password is not None else ""
        return text.replace(secret, "***") if secret else text

    def _unlocked_password(self) -> str:
        if self.refused:
            raise self.refusal()
        return self._password() or ""

    def _password(self) -> str | None:
        """The Basic header of the configured user; None when no user is configured."""
        user, password = self._settings.username, self._settings.password
        if user is None or password is None:
            return None
        login = f"{user}:{password.get_secret_value()}".encode()
        return "Basic " + base64.b64encode(login).decode()


class _Unusable(Exception):
    """A challenge that cannot be answered; the next one may be."""


_TOKEN_FAILURES = {401: Failure.DENIED, 403: Failure.DENIED, 408: Failure.TIMEOUT, 429: Failure.RATE_LIMITED}


def _again(error: UpstreamError) -> UpstreamError:
    """The same failure as an exception of its own: one that is raised in several tasks mixes their traces."""
    return UpstreamError(error.failure, error.message, status=error.status, retry_after=error.retry_after)


def _lifetime(expires_in: object) -> float:
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return _DEFAULT_LIFETIME
    return float(expires_in) if 0 < expires_in < 10**9 else _DEFAULT_LIFETIME
