"""Tokens and password of one account at an upstream, after the Distribution token specification.

The handshake:

1. A request carries the Authorization that answers the upstream's last challenge, or none before the first.
2. A 401 names challenges. Bearer is answered first: the token server in `realm` is asked for a token with the
   scope `repository:<path>:pull` and never more, since some registries refuse a scope that is too wide.
   2a. With user and password, if the realm is on the upstream's own origin or in `realms`.
   2b. Anonymously otherwise, and always if the 401 came from the target of a redirect.
   2c. Redirects of the token server are followed; the password stays behind once they leave those origins.
3. Basic is answered second: user and password, to the upstream's own origin only.
4. The request is repeated once. A second 401 is final.
"""

import asyncio
import base64
import contextlib
from collections.abc import Callable, Iterable

from msgspec import Struct, field
from yarl import URL

from mirror.config.endpoints import UpstreamSettings
from mirror.oci.challenge import Challenge
from mirror.upstream.error_body import excerpt
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.follow import get_following
from mirror.upstream.http.redirect import RedirectRules, origin, parse_url, refusal
from mirror.upstream.http.token_answer import token_of
from mirror.upstream.http.transport import Response, Transport
from mirror.upstream.outage import Outage
from mirror.upstream.retry import parse_retry_after
from mirror.util.log import get_logger, redact_url
from mirror.util.lru import LRUCache

log = get_logger(__name__)

MAX_TOKEN_BYTES = 1024 * 1024
# Share of its lifetime for which a token is used: the upstream's clock runs on while a request travels.
# BuildKit takes the same.
_USED_LIFETIME = 0.9
_TOKEN_FAILURES = {401: Failure.DENIED, 403: Failure.DENIED, 408: Failure.TIMEOUT, 429: Failure.RATE_LIMITED}
# Docker Hub locks an account for 10 minutes after some wrong passwords: do not send one with each request.
_REFUSED_FOR = 60.0
# Bytes of the tokens of one account. A client that makes up names adds one for each; those in use stay.
_TOKENS_LIMIT = 8 * 1024 * 1024


class AuthDemand(Struct, frozen=True):
    """A 401 to be answered: its challenges, and the Authorization header that was rejected.

    `own` is true if it came from the upstream's own origin, false if from the target of a redirect.
    """

    challenges: tuple[Challenge, ...]
    repository: str
    own: bool
    rejected: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(challenges={self.challenges!r}, repository={self.repository!r})"


class _TokenKey(Struct, frozen=True):
    """Key of a cached token. One got with a password is never used for an anonymous request.

    `own`: for a challenge of the upstream itself, as in AuthDemand.
    """

    realm: str
    service: str
    scope: str
    with_password: bool
    own: bool


class _CachedToken(Struct):
    """One token, and the lock under which it is fetched.

    `rejected` is true from a 401 to the token until the token server has given another one.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    header: str | None = None
    expires: float = 0.0
    rejected: bool = False
    failures: int = 0
    failure: UpstreamError | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Authorizer:
    """Answers the challenges of one upstream for one account, and caches tokens."""

    def __init__(self, settings: UpstreamSettings, transport: Transport, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._origin = origin(transport.url)
        self._realms = {origin(URL(realm)) for realm in settings.realms}
        self._tokens: LRUCache[_TokenKey, _CachedToken] = LRUCache(_TOKENS_LIMIT)
        self._last_challenge: Challenge | None = None
        self._refused_until = float("-inf")
        self._refused_by = ""
        self._refusal = Outage()
        self._accepted = False  # whether the password was accepted at its last use

    @property
    def refused(self) -> bool:
        """True for a minute after the password was refused."""
        return self._clock() < self._refused_until

    @property
    def password_refused(self) -> bool:
        """True from a refusal of the password until it is accepted again."""
        return self._refusal.active

    def is_accepted(self, authorization: str | None) -> bool:
        """Return True if `authorization` is the password and was accepted at its last use."""
        return self._accepted and authorization == self._basic_header()

    def note_answer(self, authorization: str | None, status: int) -> bool:
        """Learn from an answer of the upstream to `authorization`; return True if it refused the password."""
        if authorization is None or authorization != self._basic_header():
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
        return _refused(message, 401)

    def _note_refusal(self, server: URL) -> None:
        """Warn once until the password is accepted again."""
        now = self._clock()
        self._refused_until, self._refused_by = now + _REFUSED_FOR, server.host or ""
        self._accepted = False
        if self._refusal.failed(now) is not None:
            log.warning(
                "password refused, check username and password_file",
                upstream=self._transport.name,
                account=self._settings.username,
                server=server.host,
            )

    def _note_acceptance(self) -> None:
        self._refused_until, self._accepted = float("-inf"), True
        if self._refusal.ended(self._clock()) is not None:
            upstream, account = self._transport.name, self._settings.username
            log.info("password accepted again", upstream=upstream, account=account)

    async def current(self, repository: str) -> str | None:
        """Return the Authorization header that the last challenge asked for.

        None before the first challenge, and after a token was rejected: the upstream then sends a new one.
        """
        if self._last_challenge is None:
            return None
        demand = AuthDemand((self._last_challenge,), repository, own=True)
        token = self._token_for(self._last_challenge, demand)
        return None if token is not None and token.rejected else await self.answer(demand)

    def is_new(self, challenges: Iterable[Challenge]) -> bool:
        """Return whether none of the challenges names the token server that gave the last token.

        Some registries name another token server to a client with an old token than to one without (nvcr.io).
        """
        last = self._last_challenge
        return last is not None and all(each.server != last.server for each in challenges)

    def forget_rejected(self, demand: AuthDemand) -> None:
        """Forget the token that was answered 401, so that it is not sent again."""
        challenges = [*demand.challenges, *([self._last_challenge] if self._last_challenge else [])]
        for challenge in challenges:
            token = self._token_for(challenge, demand)
            if token is not None and token.header is not None and token.header == demand.rejected:
                token.header, token.rejected = None, True

    def _token_for(self, challenge: Challenge, demand: AuthDemand) -> _CachedToken | None:
        """Return what is cached for a challenge."""
        with contextlib.suppress(_UnusableChallenge):
            if challenge.scheme == "bearer":
                return self._tokens.get(self._key(challenge, demand))
        return None

    async def answer(self, demand: AuthDemand) -> str:
        """Return the Authorization header that answers a 401; raise DENIED if there is none.

        That is the upstream's own word only if it accepts the password, but not for this repository.
        """
        reasons: list[_UnusableChallenge] = []
        for challenge in self._by_preference(demand.challenges):
            try:
                if challenge.scheme == "bearer":
                    header = await self._bearer(challenge, demand)
                else:
                    header = self._basic(demand)
            except _UnusableChallenge as reason:
                reasons.append(reason)
                continue
            if demand.own:
                self._last_challenge = challenge
            return header
        why = "; ".join(map(str, reasons)) or "the upstream did not say how"
        error = _refused(f"{self._transport.name}: cannot authenticate: {why}", 401)
        error.vague = not any(isinstance(reason, _NotForRepository) for reason in reasons)
        raise error

    def _by_preference(self, challenges: Iterable[Challenge]) -> list[Challenge]:
        usable = [challenge for challenge in challenges if challenge.scheme in ("bearer", "basic")]
        return sorted(usable, key=lambda challenge: challenge.scheme != "bearer")

    def _basic(self, demand: AuthDemand) -> str:
        if not demand.own:
            raise _UnusableChallenge("no password is sent to the target of a redirect")
        header = self._basic_header()
        if header is None:
            host = self._transport.url.host
            raise _UnusableChallenge(
                f"{host} wants user and password, and none are configured: set username and password_file"
            )
        if header == demand.rejected and self._accepted:
            user, host = self._settings.username, self._transport.url.host
            raise _NotForRepository(f"{host} accepts user {user}, but not for {demand.repository}")
        if header == demand.rejected:
            raise self.refusal()
        return header

    async def _bearer(self, challenge: Challenge, demand: AuthDemand) -> str:
        return await self._token(self._key(challenge, demand), demand.rejected)

    def _key(self, challenge: Challenge, demand: AuthDemand) -> _TokenKey:
        realm = self._realm(challenge, demand)
        return _TokenKey(
            realm=str(realm),
            service=challenge.parameters.get("service", ""),
            scope=self._scope(challenge, demand),
            with_password=demand.own and self._settings.username is not None and self._is_trusted(realm),
            own=demand.own,
        )

    def _scope(self, challenge: Challenge, demand: AuthDemand) -> str:
        # The upstream's own challenge may carry a placeholder (ghcr.io). At the target of a redirect the
        # repository may have another name, which only the challenge has.
        foreign = None if demand.own else challenge.parameters.get("scope")
        return foreign or f"repository:{demand.repository}:pull"

    def _is_trusted(self, realm: URL) -> bool:
        """Return True if the password may be sent to `realm`."""
        return origin(realm) == self._origin or origin(realm) in self._realms

    def _realm(self, challenge: Challenge, demand: AuthDemand) -> URL:
        """Return the URL of the token server if it may be asked at all."""
        try:
            realm = parse_url(challenge.parameters.get("realm", ""))
        except ValueError:
            raise _UnusableChallenge("the realm of its token server is not a URL") from None
        rules = self._rules(realm)
        secure = self._transport.url.scheme == "https"
        if realm.raw_user is not None or (reason := refusal(rules, realm, secure=secure)):
            why = "it names a user" if realm.raw_user is not None else reason
            raise _UnusableChallenge(f"token server {redact_url(str(realm))} is not asked: {why}")
        return realm

    def _rules(self, realm: URL) -> RedirectRules:
        """Return the rules for a realm and its redirects."""
        trusted = origin(realm) in self._realms
        return RedirectRules(self._transport.url, private=self._transport.private or trusted)

    async def _token(self, key: _TokenKey, rejected: str | None) -> str:
        """Return the cached token, or one new token for all callers that wait for the same key."""
        token = self._cached(key)
        seen = token.failures
        async with token.lock:
            if token.header is not None and token.header != rejected and self._clock() < token.expires:
                return token.header
            if token.failure is not None and token.failures > seen:
                # Another caller failed while this one waited: a dead token server is asked once for all.
                raise token.failure.copy()
            try:
                token.header, lifetime = await self._fetch(key)
            except UpstreamError as error:
                token.failures, token.failure = token.failures + 1, error.copy()
                raise
            token.expires, token.rejected = self._clock() + lifetime * _USED_LIFETIME, False
            self._keep(key, token)
            return token.header

    def _cached(self, key: _TokenKey) -> _CachedToken:
        token = self._tokens.get(key)
        if token is None:
            token = _CachedToken()
            self._keep(key, token)
        return token

    def _keep(self, key: _TokenKey, token: _CachedToken) -> None:
        size = len(key.realm) + len(key.service) + len(key.scope) + len(token.header or "")
        self._tokens.put(key, token, size)

    async def _fetch(self, key: _TokenKey) -> tuple[str, float]:
        """Ask the token server; return the header and its lifetime in seconds."""
        query = [("service", key.service)] if key.service else []
        realm = URL(key.realm, encoded=True)
        login = self._password_unless_refused() if key.with_password else None
        url = realm.extend_query([*query, ("scope", key.scope)])
        headers = {"Accept": "application/json"}
        response, with_password = await get_following(
            self._transport,
            self._rules(realm),
            url,
            headers,
            login,
            self._is_trusted if key.own else _is_nobody,
        )
        try:
            body = await self._transport.read(response, MAX_TOKEN_BYTES)
        finally:
            response.close()
        if response.status != 200:
            raise self._failure(key, response, body, with_password=with_password)
        if with_password:
            self._note_acceptance()
        try:
            header, lifetime = token_of(body)
        except ValueError as reason:
            raise UpstreamError(Failure.INVALID, f"{self._transport.name}: {reason}") from None
        log.debug("token fetched", realm=redact_url(key.realm), scope=key.scope, seconds=round(lifetime))
        return header, lifetime

    def _failure(
        self, key: _TokenKey, response: Response, body: bytes, *, with_password: bool
    ) -> UpstreamError:
        status = response.status
        failure = _TOKEN_FAILURES.get(status, Failure.SERVER_ERROR if status >= 500 else Failure.INVALID)
        message = self._failure_words(key, status, with_password=with_password)
        if detail := self.redacted(excerpt(body, response.content_type)):
            message += f": {detail}"
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        error = UpstreamError(failure, message, status=status, retry_after=retry_after)
        error.vague = True
        return error

    def _failure_words(self, key: _TokenKey, status: int, *, with_password: bool) -> str:
        if status == 401 and with_password:
            self._note_refusal(URL(key.realm, encoded=True))
            return self.refusal().message
        client = f"user {self._settings.username}" if with_password else "an anonymous request"
        words = f"{self._transport.name}: {redact_url(key.realm)} answered {status} to {client}"
        if self._settings.username is not None and not with_password:
            words += " (the password goes only to origins in realms)"
        return words

    def redacted(self, text: str) -> str:
        """Return `text` without the configured password, should an upstream echo it."""
        password = self._settings.password
        secret = password.get_secret_value() if password is not None else ""
        return text.replace(secret, "***") if secret else text

    def _password_unless_refused(self) -> str:
        if self.refused:
            raise self.refusal()
        return self._basic_header() or ""

    def _basic_header(self) -> str | None:
        """Return the Basic header of the configured user; None if no user is configured."""
        user, password = self._settings.username, self._settings.password
        if user is None or password is None:
            return None
        login = f"{user}:{password.get_secret_value()}".encode()
        return "Basic " + base64.b64encode(login).decode()


class _UnusableChallenge(Exception):
    """A challenge that cannot be answered; another one may be."""


class _NotForRepository(_UnusableChallenge):
    """The account is accepted, but not for the repository."""


def _refused(message: str, status: int) -> UpstreamError:
    """Return the error of a refusal that is about this mirror, and not about a repository."""
    error = UpstreamError(Failure.DENIED, message, status=status)
    error.vague = True
    return error


def _is_nobody(_: URL) -> bool:
    """Trust no URL: the challenge came from the target of a redirect."""
    return False
