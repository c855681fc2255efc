"""HTTP client of one upstream: authentication, accounts, redirects, and failures told apart.

A request may cross three kinds of host: the upstream, its token server, and the target of a redirect. The
first two may get credentials (mirror.upstream.auth), the last gets none (invariant 6).
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial

from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from mirror.oci.challenge import Challenge, parse_challenges
from mirror.upstream.accounts import Account, Accounts
from mirror.upstream.auth import AuthDemand
from mirror.upstream.error_body import MAX_ERROR_BYTES, errors_in, excerpt, failure_of, is_own_word
from mirror.upstream.errors import FINAL, AnswerTooLong, Failure, HeadRefused, UpstreamError
from mirror.upstream.guests.guest_accounts import GuestAccounts
from mirror.upstream.http.redirect import (
    STATUSES,
    RedirectRefused,
    RedirectRules,
    climbs,
    is_signed,
    next_hop,
    origin,
)
from mirror.upstream.http.request import Hop, OutgoingRequest
from mirror.upstream.http.transport import Response, ResponseContent, Transport
from mirror.upstream.media_types import is_page, media_type
from mirror.upstream.retry import parse_retry_after, retry_after_in
from mirror.util.ttl_cache import TTLCache

# Answers of stores to a signed URL that is too old, or that was signed for another method.
_EXPIRED = frozenset({400, 401, 403, 404, 410})
# How long an answer that was too long is not asked for again, in seconds: finding out costs megabytes.
TOO_LONG_TTL = 60.0
_MAX_TOO_LONG = 1000

_SUCCESSES = {"HEAD": {200}, "GET": {200, 206}}


class DirectLocation(Struct):
    """Target of the last redirect for one blob: its next range is asked for there, as long as that works."""

    url: URL | None = None  # signed

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class HTTPClient:
    """Sends requests to one upstream."""

    def __init__(
        self, transport: Transport, accounts: Accounts, guests: GuestAccounts, clock: Callable[[], float]
    ) -> None:
        self._transport = transport
        self._origin = origin(transport.url)
        self._base = f"{transport.url}/v2/"
        self._paths = ("/v2/", f"{transport.url.raw_path.rstrip('/')}/v2/")
        self._accounts = accounts
        self._guests = guests
        self._too_long: TTLCache[tuple[str, int], UpstreamError] = TTLCache(
            TOO_LONG_TTL, _MAX_TOO_LONG, clock
        )

    @contextlib.asynccontextmanager
    async def open(
        self, request: OutgoingRequest, location: DirectLocation | None = None
    ) -> AsyncIterator[Response]:
        """Yield a successful answer, its body unread; raise UpstreamError for every other answer.

        A body that is not read to its end costs the connection: the rest is not waited for.
        """
        location = location or DirectLocation()
        response = await self._answer(request, location)
        try:
            await self._check(response)
            if not self._own(response.url):
                location.url = response.url
            yield response
        finally:
            response.close()

    async def _answer(self, request: OutgoingRequest, location: DirectLocation) -> Response:
        """Return the answer of any status, its body unread; to be closed."""
        try:
            response = await self._send_directly(request, location) or await self._send_as_account(request)
        except UpstreamError as error:
            invalid = error.failure is Failure.INVALID and not error.vague  # vague: the token server's
            if request.method == "HEAD" and (invalid or error.hung_up):
                refused = HeadRefused(Failure.INVALID, error.message, status=error.status)
                refused.hung_up = error.hung_up
                raise refused from None
            raise
        if request.method == "GET" and self._expired(response):
            response.close()
            response = await self._send_as_account(request)
        return response

    async def fetch(
        self, request: OutgoingRequest, limit: int, *, remember: bool = False
    ) -> tuple[Response, bytes]:
        """Return a successful answer and its whole body; raise AnswerTooLong beyond `limit` bytes.

        With `remember`, raise AnswerTooLong for a while without asking again, unless the answer announces its
        length: then asking costs nothing.
        """
        key = (request.path, limit)
        if (known := self._too_long.get(key)) is not None:
            raise AnswerTooLong(known.failure, known.message, status=known.status)
        response = await self._answer(request, DirectLocation())
        try:
            await self._check(response)
            return response, await self._transport.read(response, limit)
        except AnswerTooLong as error:
            if remember and not error.announced:
                self._too_long.put(key, error.copy())
            raise
        finally:
            response.close()

    def content(self, response: Response) -> ResponseContent:
        """Return the body of an answer, to be read."""
        return ResponseContent(self._transport, response)

    async def _send_directly(self, request: OutgoingRequest, location: DirectLocation) -> Response | None:
        """Return the answer of the last redirect's target; None if that does not work any more."""
        if (url := location.url) is None:
            return None
        try:
            response = await self._send(request, Hop(url, own=False, inside=False), None)
        except UpstreamError:
            location.url = None
            raise
        if response.status in (200, 206):
            return response
        if location.url == url:
            location.url = None
        response.close()
        return None

    def _expired(self, response: Response) -> bool:
        # Only a URL with a query is signed; registry.k8s.io's redirects to other registries have none.
        outside = not self._own(response.url) or is_signed(response.url) or not self._is_api(response.url)
        return outside and bool(response.url.raw_query_string) and response.status in _EXPIRED

    def _is_api(self, url: URL) -> bool:
        """Return whether `url` is of the upstream's API: other paths of its host may be another service's."""
        return self._own(url) and url.raw_path.startswith(self._paths) and not climbs(url)

    def _own(self, url: URL) -> bool:
        return origin(url) == self._origin

    async def _send_as_account(self, request: OutgoingRequest) -> Response:
        """Return the answer to an account of the mirror; to the current guest where that may read more."""
        guest = self._guests.current(request.repository)
        if guest is not None and self._guests.is_alone(request.repository):
            return await self.send_as(request, guest)
        answer = await self._send_as_own(request)
        if guest is not None and _is_refusal(answer):
            second = await self.try_account(guest, request)
            if isinstance(second, Response) and second.status < 400:
                self._guests.note_alone(request.repository)
                answer, second = second, answer
            if isinstance(second, Response):
                second.release()
        if isinstance(answer, UpstreamError):
            raise answer
        return answer

    async def _send_as_own(self, request: OutgoingRequest) -> Response | UpstreamError:
        """Return the answer to the preferred account; if it has to pause or is refused, to the next."""
        probe = partial(self._is_public, request)
        account = await self._accounts.choose(request.repository, probe)
        tried = [account]
        while True:
            answer = await self.try_account(account, request)
            if not (account.auth.refused if isinstance(answer, UpstreamError) else answer.status == 429):
                break
            account = await self._accounts.choose(request.repository, probe)
            if account in tried:
                break
            tried.append(account)
            if isinstance(answer, Response):
                answer.release()
        return answer

    async def try_account(self, account: Account, request: OutgoingRequest) -> Response | UpstreamError:
        """Return the answer to one account, its body unread, or the error if it could not ask."""
        try:
            response = await self.send_as(request, account)
        except UpstreamError as error:
            if account.auth.refused:
                self._accounts.release_claim(request.repository, account)
            return error
        if response.status < 400:
            self._accounts.confirm_claim(request.repository, account)
        return response

    async def _is_public(self, request: OutgoingRequest) -> bool:
        """Return True if a HEAD, which Docker Hub does not count, or else a GET succeeds without an account.

        A web page is no success, which is how a login form answers, nor is an answer without any length.
        """
        for method in ("HEAD", "GET"):
            asked = replace(request, method=method, proven=method == "GET")
            try:
                response = await self.send_as(asked, self._accounts.anonymous)
            except UpstreamError:
                continue
            response.release()
            page = is_page(media_type(response.headers.get("Content-Type")))
            if response.status in _SUCCESSES[method] and not page and response.content_length != 0:
                return True
            if response.status == 429:
                break  # a GET would count
        return False

    async def send_as(self, request: OutgoingRequest, account: Account) -> Response:
        """Return the answer to an account at the end of all redirects, of any status; to be closed."""
        visited = [URL(self._base + request.path, encoded=True)]
        while True:
            inside = all(self._own(hop) for hop in visited)
            own = all(self._is_api(hop) and not is_signed(hop) for hop in visited[1:])
            response = await self._authorized(request, Hop(visited[-1], own, inside), account)
            location = response.headers.get("Location")
            if response.status not in STATUSES or location is None:
                return response
            if response.status == 303 and not request.follow_see_other:
                return response
            response.release()
            rules = RedirectRules(self._transport.url, private=self._transport.private)
            try:
                visited.append(next_hop(rules, visited, location))
            except RedirectRefused as reason:
                message = f"{self._transport.name}: {reason}"
                raise UpstreamError(Failure.INVALID, message, status=response.status) from None

    async def _authorized(self, request: OutgoingRequest, hop: Hop, account: Account) -> Response:
        """Return the answer of one host after at most one challenge."""
        authorization = await account.auth.current(request.repository) if hop.own else None
        response = await self._send(request, hop, authorization)
        if self._is_rejected(response, authorization, account):
            # What it says to an old token may differ from what it says to a new client.
            account.auth.forget_rejected(AuthDemand((), request.repository, hop.own, rejected=authorization))
            response.release()
            authorization = None
            response = await self._send(request, hop, authorization)
        if response.status == 401 and (hop.own or _challenges(response)):
            response = await self._authenticate(request, hop, account, response, authorization)
        else:
            account.auth.note_answer(authorization, response.status)
        # Rate limits of stores and other registries are not this account's; a 401 is counted for no account.
        if hop.own and response.status != 401:
            account.observe(response.headers, response.status, self._transport.name)
        return response

    def _is_rejected(self, response: Response, authorization: str | None, account: Account) -> bool:
        """Return whether a token was rejected in a way that a challenge to a new client may not share."""
        if authorization is None or not authorization.startswith("Bearer "):
            return False
        challenges = _challenges(response)
        is_new = bool(challenges) and account.auth.is_new(challenges)
        return response.status == 403 or (response.status == 401 and is_new)

    async def _authenticate(
        self,
        request: OutgoingRequest,
        hop: Hop,
        account: Account,
        response: Response,
        authorization: str | None,
    ) -> Response:
        """Answer the challenges of a 401 and repeat the request; raise DENIED where that is not possible."""
        challenges, codes = _challenges(response), frozenset[str]()
        if any(challenge.scheme == "bearer" for challenge in challenges):
            response.release()
        else:
            _, codes = await self._words(response)
            response.close()
        await self._check_password(account, authorization, 401)
        challenges = challenges or await self._ping()
        demand = AuthDemand(challenges, request.repository, hop.own, rejected=authorization)
        account.auth.forget_rejected(demand)
        try:
            return await self._answer_challenge(request, hop, account, demand)
        except UpstreamError as error:
            bearer = any(challenge.scheme == "bearer" for challenge in challenges)
            if error.failure is Failure.DENIED and not (bearer or account.auth.refused):
                if request.method == "HEAD" and hop.own:
                    raise HeadRefused(Failure.INVALID, error.message, status=401) from None
                error.vague = error.vague and not is_own_word(401, codes)
            raise

    async def _answer_challenge(
        self, request: OutgoingRequest, hop: Hop, account: Account, demand: AuthDemand
    ) -> Response:
        """Repeat a request with the authorization demanded; raise DENIED if the password is refused."""
        authorization = await account.auth.answer(demand)
        response = await self._send(request, hop, authorization)
        try:
            refused = await self._check_password(account, authorization, response.status)
        except BaseException:
            response.close()
            raise
        if refused:
            response.release()
            raise account.auth.verdict.error()
        if response.status == 401 and account.auth.is_outdated(authorization):
            response.release()
            authorization = await account.auth.answer(replace(demand, rejected=authorization))
            response = await self._send(request, hop, authorization)
            account.auth.note_answer(authorization, response.status)
        if response.status in (401, 403):
            account.auth.forget_rejected(replace(demand, rejected=authorization))
        return response

    async def _check_password(self, account: Account, authorization: str | None, status: int) -> bool:
        """Learn from an answer if the password is accepted; return True if it was refused.

        A 401 may also mean that the user may not read this repository: RFC 9110 15.5.2 calls it a refusal of
        authorization. If the password was accepted before, /v2/ tells the two apart. A password of which the
        login has another one by now is not refused: the other one is tried.
        """
        if status == 401 and account.auth.is_accepted(authorization):
            response = await self._get_v2({"Authorization": authorization or ""})
            status = response.status
        if status == 401 and await account.auth.renew(authorization):
            return False
        return account.auth.note_answer(authorization, status)

    async def _send(self, request: OutgoingRequest, hop: Hop, authorization: str | None) -> Response:
        headers = dict(request.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        return await self._transport.send(
            request.method, hop.url, headers, proven=request.proven, identified=hop.inside
        )

    async def _ping(self) -> tuple[Challenge, ...]:
        """Return the challenges of /v2/, for a registry whose other 401s carry none (seen at gcr.io)."""
        return _challenges(await self._get_v2({}))

    async def _get_v2(self, headers: Mapping[str, str]) -> Response:
        """Return the answer of /v2/, its body dropped."""
        response = await self._transport.send("GET", URL(self._base, encoded=True), headers)
        response.release()
        return response

    async def _check(self, response: Response) -> None:
        if response.status not in (200, 206):
            raise await self._failure(response)

    async def _failure(self, response: Response) -> UpstreamError:
        body, codes = await self._words(response)
        failure = failure_of(response.status, codes)
        if self._expired(response):
            # The registry granted the request: its store's refusal is a disorder at the upstream.
            failure = Failure.SERVER_ERROR
        message = f"{self._transport.name}: {response.url.host_port_subcomponent} answered {response.status}"
        detail = self._accounts.redacted(excerpt(body, response.content_type))
        if detail := self._guests.redacted(detail):
            message += f": {detail}"
        words = retry_after_in(body) if failure is Failure.RATE_LIMITED else None
        retry_after = parse_retry_after(response.headers.get("Retry-After") or words)
        if response.method == "HEAD" and failure is not Failure.RATE_LIMITED:
            return HeadRefused(Failure.INVALID, message, status=response.status)
        error = UpstreamError(failure, message, status=response.status, retry_after=retry_after)
        error.vague = not is_own_word(response.status, codes)
        error.bad_request = (response.status, failure) == (400, Failure.INVALID) and self._is_api(
            response.url
        )
        return error

    async def _words(self, response: Response) -> tuple[bytes, frozenset[str]]:
        """Return the body of a failing answer, and the codes in it; nothing if it cannot be read."""
        body = b""
        # Reading a failing answer may fail too; its status is enough then.
        with contextlib.suppress(UpstreamError):
            body = await self._transport.read(response, MAX_ERROR_BYTES)
        return body, frozenset(code for code, _ in errors_in(body))


def _is_refusal(answer: Response | UpstreamError) -> bool:
    if isinstance(answer, UpstreamError):
        return answer.failure in FINAL
    return answer.status in (401, 403, 404)


def _challenges(response: Response) -> tuple[Challenge, ...]:
    return tuple(parse_challenges(response.headers.getall("WWW-Authenticate", [])))
