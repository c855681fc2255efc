"""Tokens and password of one account at an upstream, after the Distribution token specification.

The account's credentials are those of its login (mirror.credentials.login), which may change meanwhile. The
handshake:

1. A request carries the Authorization that answers the upstream's last challenge, or none before the first.
2. A 401 names challenges. Bearer is answered first: the token server in `realm` is asked for a token with the
   scope `repository:<path>:pull` and never more, since some registries refuse a scope that is too wide.
   2a. With user and password, if the realm is on the upstream's own origin or in `realms`; by POST with an
       identity token.
   2b. Anonymously otherwise, and always if the 401 came from the target of a redirect.
   2c. Redirects of the token server are followed; the password stays behind once they leave those origins.
3. Basic is answered second: user and password, to the upstream's own origin only.
4. The request is repeated once. A second 401 is final, unless the login has other credentials by then.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from msgspec import Struct, field
from yarl import URL

from mirror.config.endpoints import UpstreamSettings
from mirror.credentials.credential import Credential, CredentialError
from mirror.credentials.login import Login
from mirror.oci.challenge import Challenge
from mirror.upstream.account.realms import Realms, UnusableChallenge, trust_nobody
from mirror.upstream.account.token_request import TokenRequest, ask
from mirror.upstream.account.verdict import PasswordVerdict, refused
from mirror.upstream.error_body import excerpt
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.token_answer import token_of
from mirror.upstream.http.transport import Response, Transport
from mirror.upstream.retry import parse_retry_after
from mirror.util.log import get_logger, redact_url
from mirror.util.lru import LRUCache

log = get_logger(__name__)

MAX_TOKEN_BYTES = 1024 * 1024
# Share of its lifetime for which a token is used: the upstream's clock runs on while a request travels.
# BuildKit takes the same.
_USED_LIFETIME = 0.9
_TOKEN_FAILURES = {401: Failure.DENIED, 403: Failure.DENIED, 408: Failure.TIMEOUT, 429: Failure.RATE_LIMITED}
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

    `user` is None for an anonymous one. `own`: for a challenge of the upstream itself, as in AuthDemand.
    """

    realm: str
    service: str
    scope: str
    user: str | None
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


def pull_scope(repository: str) -> str:
    """Return the scope of a token that reads a repository."""
    return f"repository:{repository}:pull"


class Authorizer:
    """Answers the challenges of one upstream for one account, and caches tokens."""

    def __init__(
        self,
        settings: UpstreamSettings,
        transport: Transport,
        clock: Callable[[], float],
        login: Login | None = None,
        scope_of: Callable[[str], str] = pull_scope,
    ) -> None:
        """`login` is None for requests without an account. `scope_of`: a repository's scope to ask for."""
        self.login = login
        self._scope_of = scope_of
        self._transport = transport
        self._clock = clock
        self._realms = Realms(transport, settings.realms)
        self._tokens: LRUCache[_TokenKey, _CachedToken] = LRUCache(_TOKENS_LIMIT)
        self._last_challenge: Challenge | None = None
        advice = "username and password_file" if login is None else login.source.advice
        self.verdict = PasswordVerdict(transport.name, advice, clock)

    @property
    def refused(self) -> bool:
        """True for a minute after the password was refused, and while its source fails and there is none."""
        held = self._held
        if held is None:
            return self.login is not None and self.login.failure is not None
        return self.verdict.refuses(held)

    @property
    def password_refused(self) -> bool:
        """True from a refusal of the password until it is accepted again; also while its source fails."""
        return self.verdict.refused or (self._held is None and self.refused)

    def is_accepted(self, authorization: str | None) -> bool:
        """Return True if `authorization` is the password and was accepted at its last use."""
        return self.verdict.accepted and authorization == self._basic_header()

    def is_outdated(self, authorization: str | None) -> bool:
        """Return True if `authorization` is a password, and the login has another one by now."""
        header = self._basic_header()
        return (authorization or "").startswith("Basic ") and header not in (None, authorization)

    async def renew(self, authorization: str | None) -> bool:
        """Ask the login again because the upstream refused `authorization`; return True for others."""
        held = self._held
        if self.login is None or held is None or held.basic is None:
            return False
        if authorization == held.basic and await self.login.renew(held):
            self.verdict.accepted = False
        return self.is_outdated(authorization)

    def note_answer(self, authorization: str | None, status: int) -> bool:
        """Learn from an answer of the upstream to `authorization`; return True if it refused the password."""
        held = self._held
        if authorization is None or held is None or authorization != held.basic:
            return False
        if status == 401:
            self.verdict.note_refusal(held, self._transport.url)
        elif status < 400:
            self.verdict.note_acceptance(held)
        return status == 401

    @property
    def _held(self) -> Credential | None:
        return self.login.held if self.login is not None else None

    def _user(self) -> str:
        held = self._held
        return held.username if held is not None else ""

    async def _load(self) -> None:
        """Have the login's credentials of now, if it has any; raise DENIED if their source fails."""
        if self.login is not None:
            try:
                await self.login.get()
            except CredentialError as error:
                raise refused(f"{self._transport.name}: no credentials: {error}", 401) from None

    async def current(self, repository: str) -> str | None:
        """Return the Authorization header that the last challenge asked for.

        None before the first challenge, and after a token was rejected: the upstream then sends a new one.
        """
        if self._last_challenge is None:
            return None
        await self._load()
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
        with contextlib.suppress(UnusableChallenge):
            if challenge.scheme == "bearer":
                return self._tokens.get(self._key(challenge, demand))
        return None

    async def answer(self, demand: AuthDemand) -> str:
        """Return the Authorization header that answers a 401; raise DENIED if there is none.

        That is the upstream's own word only if it accepts the password, but not for this repository.
        """
        if demand.own:
            await self._load()
        reasons: list[UnusableChallenge] = []
        for challenge in self._by_preference(demand.challenges):
            try:
                if challenge.scheme == "bearer":
                    header = await self._bearer(challenge, demand)
                else:
                    header = self._basic(demand)
            except UnusableChallenge as reason:
                reasons.append(reason)
                continue
            if demand.own:
                self._last_challenge = challenge
            return header
        why = "; ".join(map(str, reasons)) or "the upstream did not say how"
        error = refused(f"{self._transport.name}: cannot authenticate: {why}", 401)
        error.vague = not any(isinstance(reason, _NotForRepository) for reason in reasons)
        raise error

    def _by_preference(self, challenges: Iterable[Challenge]) -> list[Challenge]:
        usable = [challenge for challenge in challenges if challenge.scheme in ("bearer", "basic")]
        return sorted(usable, key=lambda challenge: challenge.scheme != "bearer")

    def _basic(self, demand: AuthDemand) -> str:
        if not demand.own:
            raise UnusableChallenge("no password is sent to the target of a redirect")
        header, host = self._basic_header(), self._transport.url.host
        if header is None:
            raise UnusableChallenge(f"{host} wants user and password, and {self._absence()}")
        if header == demand.rejected and self.verdict.accepted:
            raise _NotForRepository(f"{host} accepts user {self._user()}, but not for {demand.repository}")
        if header == demand.rejected:
            raise self.verdict.error()
        return header

    def _absence(self) -> str:
        """Return why there is no password, in words."""
        if self.login is None:
            return "none are configured: set username and password_file"
        if self._held is not None:
            return f"{self.login.source.label} has an identity token, which is none"
        return self.login.note or f"{self.login.source.label} has none"

    async def _bearer(self, challenge: Challenge, demand: AuthDemand) -> str:
        return await self._token(self._key(challenge, demand), demand.rejected)

    def _key(self, challenge: Challenge, demand: AuthDemand) -> _TokenKey:
        realm, held = self._realms.url_of(challenge), self._held
        known = demand.own and held is not None and self._realms.trusts(realm)
        return _TokenKey(
            realm=str(realm),
            service=challenge.parameters.get("service", ""),
            scope=self._scope(challenge, demand),
            user=held.username if held is not None and known else None,
            own=demand.own,
        )

    def _scope(self, challenge: Challenge, demand: AuthDemand) -> str:
        # The upstream's own challenge may carry a placeholder (ghcr.io). At the target of a redirect the
        # repository may have another name, which only the challenge has.
        foreign = None if demand.own else challenge.parameters.get("scope")
        return foreign or self._scope_of(demand.repository)

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
        login = self._login_unless_refused() if key.user is not None else None
        response, with_password = await self._ask(key, login)
        if with_password and await self._renewed(login, response.status):
            response.close()
            login = self._held
            response, with_password = await self._ask(key, login)
        try:
            body = await self._transport.read(response, MAX_TOKEN_BYTES)
        finally:
            response.close()
        if response.status != 200:
            sent = login if with_password else None
            raise self._failure(key, response, body, sent)
        if with_password and login is not None:
            self.verdict.note_acceptance(login)
        try:
            header, lifetime = token_of(body)
        except ValueError as reason:
            raise UpstreamError(Failure.INVALID, f"{self._transport.name}: {reason}") from None
        log.debug("token fetched", realm=redact_url(key.realm), scope=key.scope, seconds=round(lifetime))
        return header, lifetime

    async def _renewed(self, login: Credential | None, status: int) -> bool:
        """Return True if a token server refused the login and there is another one."""
        if self.login is None or login is None or not _is_refusal(login, status):
            return False
        return await self.login.renew(login)

    async def _ask(self, key: _TokenKey, login: Credential | None) -> tuple[Response, bool]:
        request = TokenRequest(URL(key.realm, encoded=True), key.service, key.scope)
        trusted = self._realms.trusts if key.own else trust_nobody
        return await ask(self._transport, self._realms, request, login, trusted)

    def _failure(
        self, key: _TokenKey, response: Response, body: bytes, sent: Credential | None
    ) -> UpstreamError:
        """Return the error of an answer without a token; `sent` is the login that was sent."""
        status = response.status
        failure = _TOKEN_FAILURES.get(status, Failure.SERVER_ERROR if status >= 500 else Failure.INVALID)
        if sent is not None and _is_refusal(sent, status):
            self.verdict.note_refusal(sent, URL(key.realm, encoded=True))
            failure, message = Failure.DENIED, self.verdict.error().message
        else:
            message = self._failure_words(key, status, sent)
        if detail := self.redacted(excerpt(body, response.content_type)):
            message += f": {detail}"
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        error = UpstreamError(failure, message, status=status, retry_after=retry_after)
        error.vague = True
        return error

    def _failure_words(self, key: _TokenKey, status: int, sent: Credential | None) -> str:
        client = f"user {sent.username}" if sent is not None else "an anonymous request"
        words = f"{self._transport.name}: {redact_url(key.realm)} answered {status} to {client}"
        if self._held is not None and sent is None:
            words += " (the password goes only to origins in realms)"
        return words

    def redacted(self, text: str) -> str:
        """Return `text` without the passwords, should an upstream or a proxy echo one."""
        text = self._transport.redacted(text)
        for secret in self.login.secrets() if self.login is not None else ():
            text = text.replace(secret, "***")
        return text

    def _login_unless_refused(self) -> Credential | None:
        if self.refused:
            raise self.verdict.error()
        return self._held

    def _basic_header(self) -> str | None:
        """Return the Basic header of the account; None without a password."""
        held = self._held
        return held.basic if held is not None else None


class _NotForRepository(UnusableChallenge):
    """The account is accepted, but not for the repository."""


def _is_refusal(login: Credential, status: int) -> bool:
    """Return whether a token server refuses the login. OAuth2 has 400 for an invalid identity token."""
    return status == 401 or (login.identity and status == 400)
