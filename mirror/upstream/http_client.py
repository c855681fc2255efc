"""One request to a registry, all the way: authorization, redirects, and failures told apart.

A request may cross three kinds of host: the upstream, its token server, and whatever a redirect leads to.
Credentials are for the first two (mirror.upstream.auth); the last gets none (invariant 6).
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from yarl import URL

from mirror.oci.challenge import Challenge, parse_challenges
from mirror.upstream.accounts import Account, Accounts
from mirror.upstream.auth import TokenScope
from mirror.upstream.error_body import MAX_ERROR_BYTES, errors_in, excerpt, failure_of
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.redirect import STATUSES, RedirectRefused, RedirectRules, next_hop, origin
from mirror.upstream.http.transport import PartReader, Response, Transport
from mirror.upstream.retry import parse_retry_after

# What stores answer to a signed URL that is too old, or that was signed for another method.
_EXPIRED = frozenset({400, 401, 403, 404, 410})


class HeadRefused(UpstreamError):
    """HEAD is not for this registry, or not for the URL that it signed for GET; a GET may do."""


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """A request. `path` follows `/v2/` and may have a query; `repository` is what a token is asked for."""

    method: str
    path: str
    repository: str
    headers: Mapping[str, str] = field(default_factory=dict)
    # ghcr.io answers referrers, which it lacks, with 303 to a web page (CLIENTS.md 6.3).
    follow_see_other: bool = True


@dataclass(slots=True)
class DirectLocation:
    """Where redirects led to for one blob: its next range is asked there at once, as long as that works."""

    url: URL | None = field(default=None, repr=False)  # signed


class HTTPClient:
    """Sends requests to one upstream."""

    def __init__(self, transport: Transport, accounts: Accounts) -> None:
        self._transport = transport
        self._accounts = accounts

    @contextlib.asynccontextmanager
    async def open(
        self, ask: OutgoingRequest, shortcut: DirectLocation | None = None
    ) -> AsyncIterator[Response]:
        """A successful answer, its body unread. UpstreamError for everything else.

        A body that is not read to its end costs the connection: what is left is not waited for.
        """
        shortcut = shortcut or DirectLocation()
        response = await self._short(ask, shortcut) or await self._follow(ask)
        if ask.method == "GET" and self._expired(response):
            response.close()
            response = await self._follow(ask)
        try:
            await self._check(response)
            if not self._own(response.url):
                shortcut.url = response.url
            yield response
        finally:
            response.close()

    async def read(self, response: Response, limit: int) -> bytes:
        """The whole body; INVALID when it is longer than `limit`."""
        return await self._transport.read(response, limit)

    def chunks(self, response: Response) -> AsyncGenerator[bytes, None]:
        """The pieces of the body as they come in."""
        return self._transport.chunks(response)

    def direct_reader(self, response: Response) -> PartReader | None:
        """The body straight from the socket, instead of by `chunks`, where that pays."""
        return self._transport.direct_reader(response)

    async def _short(self, ask: OutgoingRequest, shortcut: DirectLocation) -> Response | None:
        """The answer of where the last redirect led to; None when that is no longer good."""
        if shortcut.url is None:
            return None
        url = shortcut.url
        try:
            response = await self._send(ask, url, None)
        except UpstreamError:
            shortcut.url = None
            raise
        if response.status in (200, 206):
            return response
        if shortcut.url == url:
            shortcut.url = None
        response.close()
        return None

    def _expired(self, response: Response) -> bool:
        # Only a URL with a query is signed; registry.k8s.io's redirects to other registries have none.
        signed = bool(response.url.raw_query_string) and not self._own(response.url)
        return signed and response.status in _EXPIRED

    def _own(self, url: URL) -> bool:
        return origin(url) == origin(self._transport.url)

    async def _follow(self, ask: OutgoingRequest) -> Response:
        """The answer to the account whose turn it is; if that one has to rest, to the next."""
        public = partial(self._is_public, ask)
        account = await self._accounts.choose(ask.repository, public)
        tried = [account]
        while True:
            answer = await self._answer_to(account, ask)
            if not (account.auth.refused if isinstance(answer, UpstreamError) else answer.status == 429):
                break
            account = await self._accounts.choose(ask.repository, public)
            if account in tried:
                break
            tried.append(account)
            if isinstance(answer, Response):
                answer.release()
        if isinstance(answer, UpstreamError):
            raise answer
        return answer

    async def _answer_to(self, account: Account, ask: OutgoingRequest) -> Response | UpstreamError:
        """What one account is answered, or why it could not ask."""
        try:
            response = await self._walk(ask, account)
        except UpstreamError as error:
            if account.auth.refused:
                self._accounts.release_claim(ask.repository, account)
            return error
        if response.status < 400:
            self._accounts.confirm_claim(ask.repository, account)
        return response

    async def _is_public(self, ask: OutgoingRequest) -> bool:
        """Whether anybody may read what is asked for. By HEAD, which Docker Hub does not count."""
        head = OutgoingRequest("HEAD", ask.path, ask.repository, ask.headers)
        try:
            response = await self._authorized(head, self._url(head), self._accounts.anonymous)
        except UpstreamError:
            return False
        response.release()
        return response.status < 400

    async def _walk(self, ask: OutgoingRequest, account: Account) -> Response:
        """The answer at the end of all redirects."""
        visited = [self._url(ask)]
        while True:
            own = all(self._own(hop) for hop in visited)
            response = await self._authorized(ask, visited[-1], account, own=own)
            location = response.headers.get("Location")
            if response.status not in STATUSES or location is None:
                return response
            if response.status == 303 and not ask.follow_see_other:
                return response
            response.release()
            rules = RedirectRules(self._transport.url, private=self._transport.private)
            try:
                visited.append(next_hop(rules, visited, location))
            except RedirectRefused as reason:
                message = f"{self._transport.name}: {reason}"
                raise UpstreamError(Failure.INVALID, message, status=response.status) from None

    def _url(self, ask: OutgoingRequest) -> URL:
        return URL(f"{self._transport.url}/v2/{ask.path}", encoded=True)

    async def _authorized(
        self, ask: OutgoingRequest, url: URL, account: Account, *, own: bool = True
    ) -> Response:
        """The answer, after the one challenge that a request may meet on one host."""
        authorization = await account.auth.known(ask.repository) if own else None
        response = await self._send(ask, url, authorization)
        account.auth.note_answer(authorization, response.status)
        if response.status == 401 and (own or _challenges(response)):
            challenges = _challenges(response)
            response.release()
            demand = TokenScope(challenges or await self._ping(), ask.repository, own, rejected=authorization)
            response = await self._answer_challenge(ask, url, account, demand)
        # What stores and other registries say of their limits is not about this account; a 401 is nobody's.
        if own and response.status != 401:
            account.observe(response.headers, response.status, self._transport.name)
        return response

    async def _answer_challenge(
        self, ask: OutgoingRequest, url: URL, account: Account, demand: TokenScope
    ) -> Response:
        """Repeat a request with the authorization that was demanded; DENIED when the password is refused."""
        authorization = await account.auth.answer(demand)
        response = await self._send(ask, url, authorization)
        if account.auth.note_answer(authorization, response.status):
            response.release()
            raise account.auth.refusal()
        return response

    async def _send(self, ask: OutgoingRequest, url: URL, authorization: str | None) -> Response:
        headers = dict(ask.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        return await self._transport.send(ask.method, url, headers)

    async def _ping(self) -> tuple[Challenge, ...]:
        """The challenges of /v2/, for a registry whose other 401s carry none (seen at gcr.io)."""
        url = URL(f"{self._transport.url}/v2/", encoded=True)
        response = await self._transport.send("GET", url, {})
        response.release()
        return _challenges(response)

    async def _check(self, response: Response) -> None:
        if response.status not in (200, 206):
            raise await self._failure(response)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            # Decoded it would be other bytes than the digest is of; we asked for none.
            message = (
                f"{self._transport.name}: the answer is encoded ({encoding[:20]!r}) though plain was asked"
            )
            raise UpstreamError(Failure.INVALID, message, status=response.status)

    async def _failure(self, response: Response) -> UpstreamError:
        body = b""
        # A failing answer may fail once more while it is read; the status says enough then.
        with contextlib.suppress(UpstreamError):
            body = await self._transport.read(response, MAX_ERROR_BYTES)
        codes = frozenset(code for code, _ in errors_in(body))
        failure = failure_of(response.status, codes)
        if self._expired(response):
            # The registry has granted it; that its store does not hand it out is a disorder there.
            failure = Failure.SERVER_ERROR
        message = f"{self._transport.name}: {response.url.host} answered {response.status}"
        if detail := self._accounts.redacted(excerpt(body, response.content_type)):
            message += f": {detail}"
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        if response.method == "HEAD" and (response.status in (405, 501) or self._expired(response)):
            return HeadRefused(Failure.INVALID, message, status=response.status)
        return UpstreamError(failure, message, status=response.status, retry_after=retry_after)


def _challenges(response: Response) -> tuple[Challenge, ...]:
    return tuple(parse_challenges(response.headers.getall("WWW-Authenticate", [])))
